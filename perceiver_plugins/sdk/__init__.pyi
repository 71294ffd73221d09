from .errors import DataError as DataError
