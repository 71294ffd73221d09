from .folders import AudioFolderDataModule as AudioFolderDataModule
from .module import AudioDataModule as AudioDataModule
from .tones import TonePatternsDataModule as TonePatternsDataModule
