from .adapters import TableInputAdapter as TableInputAdapter
from .config import TableEncoderConfig as TableEncoderConfig
from .data import DiabetesDataModule as DiabetesDataModule
from .data import TableDataModule as TableDataModule
from .files import TableFilesDataModule as TableFilesDataModule
from .reading import TableReader as TableReader
