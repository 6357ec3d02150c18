"""What the papers measure, as plain functions of tensors: the caller says what they were computed on and from how many items.

`coherence`, `classifiers` and `semi_supervised` ask whether what is generated is right, `probes` and `clustering` what the latents
hold, `latents` which dimensions are in use; `likelihood` and `frechet` how far what is generated is from the data, with what each of
them does not see.  Everything runs on the device of its input and draws from an explicit generator or seed.
"""
