"""Checkpoints of other programs → a model of ours: bytes → named tensors → our names → parameters.

One module a step: `file_types` recognises files that hold no weights. `restricted`, `pickles`, `torch_files` and
`lod_tensors` read what Paddle and torch write. `containers` finds the files of a checkpoint and reads them. `layouts`
renames the tensors, `configs` completes the configuration. `stored_model` combines these and checks sizes before
memory is allocated. `loading` builds the model and reports on every tensor. `native` is ernie2's own format.
"""
