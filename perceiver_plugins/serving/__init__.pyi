from .answers import ServedModel as ServedModel
from .answers import answer as answer
from .exporting import export as export
from .formats import OnnxFormat as OnnxFormat
from .formats import TorchExportFormat as TorchExportFormat
from .tracing import Port as Port
