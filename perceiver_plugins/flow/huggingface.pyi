from perceiver_plugins.huggingface.flow import *
