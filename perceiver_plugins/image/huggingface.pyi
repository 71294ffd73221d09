from perceiver_plugins.huggingface.image import *
