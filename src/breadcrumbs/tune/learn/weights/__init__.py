"""Learned coefficients: numbers of an ordinary recipe, from the gradient of a loss on a few rows.

    d loss / d weight[t, l] = <g[l], part[t, l]>

g is the gradient of the loss in the merged weights, from one backward pass; a part is what a model
adds to a tensor for a weight of 1, its task vector after the transform. The inner products are
streamed, tensor by tensor, so that in memory are a module, its gradient and no model.

kinds     what is learned, by name: adamerging, symerge, adarank, frank-wolfe
streams   what runs over a plan: into a module, and beside a gradient
family    open models, merged by weights into a module, and inner products of parts with a gradient
lessons   rows, what is known of them, and losses
learning  the steps of Adam, saved in between
ranks     a family of singular triplets, some of which are kept (AdaRank)
vertices  the steps of Frank-Wolfe
learned   what comes out: a recipe, perhaps heads
"""
