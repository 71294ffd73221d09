from .adapters import AudioPatchesInputAdapter as AudioPatchesInputAdapter
from .adapters import AudioSpectrogramInputAdapter as AudioSpectrogramInputAdapter
from .config import AudioPatchesEncoderConfig as AudioPatchesEncoderConfig
from .config import AudioSpectrogramEncoderConfig as AudioSpectrogramEncoderConfig
from .data import AudioDataModule as AudioDataModule
from .data import AudioFolderDataModule as AudioFolderDataModule
from .data import TonePatternsDataModule as TonePatternsDataModule
from .reading import AudioReader as AudioReader
