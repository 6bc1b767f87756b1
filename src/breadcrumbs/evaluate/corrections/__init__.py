"""Corrections of one task each, behind a frozen model: features in, better features or logits out.

kinds     affine, lowrank and head by name; what each is made of and does, a file each
heads     the file of the corrections of all tasks, bound to the model that they were learned behind

A foundation that is `Featured` has room for them. What learns them is `breadcrumbs.tune.learn`.
"""
