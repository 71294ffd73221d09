from .conversion import CONVERSIONS as CONVERSIONS
from .conversion import Conversion as Conversion
from .conversion import conversion_of as conversion_of
from .format import KrassermFormat as KrassermFormat
