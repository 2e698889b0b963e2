"""Inputs to predictions: one file a model, so that a new model re-trains no other.

A model is an `nn.Module` whose `forward` names its inputs as the batch does, and takes a
`target`: it returns a dictionary with its predictions and, where the target is given, its mean
`loss`. Where the data have no target it takes none, and always returns its loss. To add one: a
class in a new file here, a YAML file in conf/model/. It is tested because that file exists.
"""
