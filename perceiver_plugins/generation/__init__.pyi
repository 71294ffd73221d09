from .lightning import LitCausalModel as LitCausalModel
