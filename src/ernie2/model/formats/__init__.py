"""Checkpoints of others → a model of ours: bytes → named tensors → our names → parameters, each step in a module.

`pickles` and `lod_tensors` read what Paddle writes, `containers` finds the files of a checkpoint and reads any of them,
`layouts` knows what each layout calls a tensor, `configs` its configuration, `opening` puts these together, and
`filling` makes a model of the result and accounts for every tensor.
"""
