"""Checkpoints of others → a model of ours: bytes → named tensors → our names → parameters, each step in a module.

`sniffing` names files that are no weights; `restricted`, `pickles`, `torch_files` and `lod_tensors` read what Paddle
and torch write; `containers` finds the files of a checkpoint and reads any of them; `layouts` knows what each
layout calls a tensor, `configs` its configuration; `opening` puts these together and compares them before memory is
taken, and `filling` makes a model of the result and accounts for every tensor.
"""
