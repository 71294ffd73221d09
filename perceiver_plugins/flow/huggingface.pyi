from perceiver_plugins.huggingface.flow import OPTICAL_FLOW as OPTICAL_FLOW
from perceiver_plugins.huggingface.flow import convert_config as convert_config
from perceiver_plugins.huggingface.flow import patched_inputs as patched_inputs
