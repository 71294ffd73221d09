from .files import read_clip as read_clip
from .files import write_clip as write_clip
from .folders import VideoFolderDataModule as VideoFolderDataModule
from .format import Clip as Clip
from .format import ClipFormat as ClipFormat
from .module import ClipDataModule as ClipDataModule
from .synthetic import SyntheticClipsDataModule as SyntheticClipsDataModule
