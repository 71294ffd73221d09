from .exporting import export as export
from .formats import OnnxFormat as OnnxFormat
from .formats import TorchExportFormat as TorchExportFormat
from .served_model import ServedModel as ServedModel
from .served_model import compute_outputs as compute_outputs
from .tracing import Port as Port
