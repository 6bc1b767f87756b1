"""What must be known before a segment is merged, each found in passes of its own.

ranks      between which keys the entries of a unit stay (tally: what a pass counts)
norms      what `rescale: l1` multiplies task vectors by
fits       the numbers of a `Fitted` transform
products   inner products of whole tensors, and the coefficients from them (lines: of rows)
model      what `Elementwise.prepare` asks of the whole model
"""
