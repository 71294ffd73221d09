from .files import MidiFilesDataModule as MidiFilesDataModule
from .generated import RoundsDataModule as RoundsDataModule
from .module import MusicDataModule as MusicDataModule
