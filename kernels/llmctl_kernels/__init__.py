"""Fused kernels for training language models on packed documents. They know nothing of llmctl.

Each operation is a `torch.library` operator with a fake and a backward formula, so that `torch.compile` keeps the graph;
each has a plain torch form beside its Triton kernel. Nothing is imported here: Triton comes in when a kernel is first used.
"""
