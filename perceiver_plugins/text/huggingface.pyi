from perceiver_plugins.huggingface.text import *
