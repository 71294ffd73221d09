from perceiver_plugins.huggingface.multimodal import *
