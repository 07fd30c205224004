"""Whether the kernels compute what they should, on the device that is here: `python -m llmctl_kernels.check`."""
