"""The engine: a plan and a consumer in, what the consumer makes of each segment out.

    runner -> consumers -> routes -> passes -> vectors -> terms -> rounding -> context
           -> workspace, facts, outputs

Each knows those to its right and none to its left. Arithmetic takes values (`context.Context`) and
returns values (`routes.Merged`, `facts.Facts`); one place writes (`consumers.Writing`).
"""
