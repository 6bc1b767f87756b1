"""What there is: transforms, aggregates, and the published pairs of them, the methods.

To add a method: write the file of its transform or aggregate, a line here, and a row in the table
of the tests.
"""

from __future__ import annotations

from breadcrumbs.methods.aggregates import Aggregate
from breadcrumbs.methods.aggregates.elect import election
from breadcrumbs.methods.aggregates.sum import scaled_sum
from breadcrumbs.methods.method import Method
from breadcrumbs.methods.parameters import AUTO
from breadcrumbs.methods.published import cabs, emr
from breadcrumbs.methods.published.average import MEAN
from breadcrumbs.methods.published.cabs import CABS
from breadcrumbs.methods.published.consensus import CONSENSUS
from breadcrumbs.methods.published.emr import EMR
from breadcrumbs.methods.published.fisher import FISHER
from breadcrumbs.methods.published.iso_c import ISO_C
from breadcrumbs.methods.published.iso_cts import ISO_CTS
from breadcrumbs.methods.published.karcher import KARCHER
from breadcrumbs.methods.published.lines import LINES
from breadcrumbs.methods.published.localize_and_stitch import STITCH
from breadcrumbs.methods.published.model_stock import MODEL_STOCK
from breadcrumbs.methods.published.multislerp import MULTISLERP
from breadcrumbs.methods.published.nearswap import NEARSWAP
from breadcrumbs.methods.published.nuslerp import NUSLERP
from breadcrumbs.methods.published.pcb import PCB
from breadcrumbs.methods.published.regmean import REGMEAN
from breadcrumbs.methods.published.sce import SCE
from breadcrumbs.methods.published.slerp import SLERP
from breadcrumbs.methods.published.star import STAR
from breadcrumbs.methods.published.tall_mask import TALL_MASK
from breadcrumbs.methods.published.tatr import TATR
from breadcrumbs.methods.published.tsv_m import TSV_M
from breadcrumbs.methods.published.wudi import WUDI
from breadcrumbs.methods.transforms import Everything, Transform
from breadcrumbs.methods.transforms.breadcrumbs import BREADCRUMBS
from breadcrumbs.methods.transforms.drop import DROP
from breadcrumbs.methods.transforms.largest import largest
from breadcrumbs.methods.transforms.magprune import MAGPRUNE
from breadcrumbs.methods.transforms.random_mask import RANDOM_MASK
from breadcrumbs.methods.transforms.top_masking import TOP_MASKING
from breadcrumbs.methods.transforms.tvq import RTVQ, TVQ

_BREADCRUMBS_PAPER = "Davari and Belilovsky, Model Breadcrumbs, ECCV 2024, arXiv:2312.06795"
_TIES_PAPER = "Yadav et al., TIES-Merging, NeurIPS 2023, arXiv:2306.01708"
_DARE_PAPER = "Yu et al., Language Models are Super Mario, ICML 2024, arXiv:2311.03099"
_ISO_PAPER = "Marczak et al., No Task Left Behind, ICML 2025, arXiv:2502.04959"
_TALL_PAPER = "Wang et al., Localizing Task Information (TALL-masks), ICML 2024, arXiv:2405.07813"
_TVQ_PAPER = "Kim et al., Task Vector Quantization, ICCV 2025, arXiv:2503.06921"
_ON_TIES = (
    " `on: ties`: the trimmed 20 % of each model make S, the masks compare whole task vectors with"
    " it; that takes up to 6 passes more."
)
_MATRICES = (
    "Holds a matrix of every model. Tensors that are no matrices get the mean; of experts stacked"
    " in one tensor (E, m, n), each matrix is one."
)
_DELLA_PAPER = "Deep et al., DELLA-Merging, 2024, arXiv:2406.11617"

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            "breadcrumbs",
            BREADCRUMBS,
            scaled_sum(AUTO),
            "cut both tails of each task vector, tensor by tensor, and add the rest",
            "base + alpha * sum_t weight_t * m_t * tau_t, "
            "m_t = [floor(beta n) < rank |tau_t| <= n - floor((1 - gamma) n)]",
            _BREADCRUMBS_PAPER,
            "Published settings: ViT-B/32 beta .90 gamma .99; B/16 .90/.992; L/14 .85/.99;"
            " 200 tasks .85/.993. alpha is not printed (a remark of the authors: 1 at .90/.99):"
            " it is found from the weights."
            " Embeddings and heads are ranked row by row, unless `granularity: tensor` is given."
            " Entries rank by (magnitude, position), so the number kept is exact."
            " mergekit names the fraction of largest entries cut `gamma`: 0.01 there is 0.99 here.",
        ),
        Method(
            "task_arithmetic",
            Everything(),
            scaled_sum(0.3),
            "add the task vectors",
            "base + alpha * sum_t weight_t * tau_t",
            "Ilharco et al., Editing Models with Task Arithmetic, ICLR 2023, arXiv:2212.04089",
            "alpha .3 is the value published for use without validation data."
            " A negative alpha takes tasks away.",
        ),
        Method(
            "average",
            Everything(),
            MEAN,
            "the (weighted) mean of the models",
            "sum_t weight_t * model_t / sum_t weight_t",
            "Wortsman et al., Model soups, ICML 2022, arXiv:2203.05482",
            "The base lends the layout and is no part of the mean. Weights are normalised.",
        ),
        Method(
            "bottom_masking",
            largest("0.10"),
            scaled_sum(AUTO),
            "keep the largest entries of each task vector, outliers included (ablation)",
            "base + alpha * sum_t weight_t * m_t * tau_t, "
            "m_t = [rank |tau_t| > n - floor(density n)]",
            _BREADCRUMBS_PAPER + ", Fig. 7",
            "alpha is not published.",
        ),
        Method(
            "top_masking",
            TOP_MASKING,
            scaled_sum(AUTO),
            "cut only the largest entries of each task vector (ablation)",
            "base + alpha * sum_t weight_t * m_t * tau_t, "
            "m_t = [rank |tau_t| <= n - floor(outliers n)]",
            _BREADCRUMBS_PAPER + ", Fig. 7",
            "alpha is not published.",
        ),
        Method(
            "random_sparsed",
            RANDOM_MASK,
            scaled_sum(AUTO),
            "keep entries at random, without rescaling (ablation)",
            "base + alpha * sum_t weight_t * m_t * tau_t, m_t iid Bernoulli(density)",
            _BREADCRUMBS_PAPER + ", Table 1",
            "alpha is not published. The draws depend on the seed, the name of the model and the"
            " name of the tensor alone.",
        ),
        Method(
            "magnitude",
            largest("0.20"),
            scaled_sum(AUTO),
            "keep the largest entries of each task vector, tensor by tensor, and add them",
            "base + alpha * sum_t weight_t * m_t * tau_t, "
            "m_t = [rank |tau_t| > n - floor(density n)]",
            "the trimming of " + _TIES_PAPER,
            "As bottom_masking; density as in TIES. alpha is not published.",
        ),
        Method(
            "ties",
            largest("0.20", unit="model"),
            election("mean", 1.0),
            "trim each task vector, elect a sign for each entry, average those that have it",
            "base + alpha * mean over {t: sign(w_t m_t tau_t) = s} of w_t m_t tau_t, "
            "s = sign(sum_t w_t m_t tau_t), m_t = [rank |tau_t| > N - floor(density N)], N of all",
            _TIES_PAPER,
            "alpha 1 is published with `merge: mean`, 0.3 with `merge: sum`. The authors' program"
            " keeps one entry more than density N. A sum of 0 elects what most entries elect,"
            " negative if there is no majority. With `granularity: tensor` it elects positive and"
            " trims each tensor, as mergekit does. Weights multiply before the election, and the"
            " mean divides by the sum of the magnitudes of the weights that agree.",
        ),
        Method(
            "dare_linear",
            DROP,
            scaled_sum(AUTO),
            "drop entries of each task vector at random, rescale the rest, and add them",
            "base + alpha * sum_t weight_t * m_t * tau_t / (1 - p), m_t iid Bernoulli(1 - p)",
            _DARE_PAPER,
            "The draws depend on the seed, the name of the model and the name of the tensor alone."
            " mergekit's density is 1 - p, and it rescales to the L1 norm (`rescale: l1`).",
        ),
        Method(
            "dare_ties",
            DROP,
            election("sum", AUTO),
            "drop at random, rescale, elect a sign for each entry, add those that have it",
            "base + alpha * sum over {t: sign(w_t d_t) = s} of w_t d_t, s = sign(sum_t w_t d_t), "
            "d_t = m_t tau_t / (1 - p), m_t iid Bernoulli(1 - p)",
            _DARE_PAPER,
            "Nothing is trimmed besides. `merge: mean` takes TIES's mean.",
        ),
        Method(
            "della_linear",
            MAGPRUNE,
            scaled_sum(AUTO),
            "drop small entries more often than large ones, rescale the rest, and add them",
            "base + alpha * sum_t weight_t * m_t * tau_t / p_t, m_t Bernoulli(p_t), "
            "p_t = density - epsilon + 2 epsilon (rank - 1) / (c - 1) in a row of c",
            _DELLA_PAPER,
        ),
        Method(
            "della",
            MAGPRUNE,
            election("sum", AUTO),
            "drop small entries more often, rescale, elect a sign, add those that have it",
            "base + alpha * sum over {t: sign(w_t d_t) = s} of w_t d_t, s = sign(sum_t w_t d_t), "
            "d_t = m_t tau_t / p_t as in della_linear",
            _DELLA_PAPER,
        ),
        Method(
            "breadcrumbs_ties",
            BREADCRUMBS,
            election("sum", AUTO),
            "cut both tails of each task vector, elect a sign, add the entries that have it",
            "base + alpha * sum over {t: sign(w_t m_t tau_t) = s} of w_t m_t tau_t, "
            "s = sign(sum_t w_t m_t tau_t), m_t as in breadcrumbs",
            _BREADCRUMBS_PAPER + "; the election of " + _TIES_PAPER,
            "A pair that mergekit offers; no paper.",
        ),
        Method(
            "consensus",
            Everything(),
            CONSENSUS,
            "keep of the sum of task vectors the entries that at least k tasks use",
            "base + alpha * [#{t: |tau_t| > scale_t |S - tau_t|} >= k] * S, S = sum_t w_t tau_t",
            _TALL_PAPER,
            "scale is searched from .2 to .6 for each task on validation data in the paper, .4"
            " without. k 1 removes catastrophic entries, k 2 also selfish ones; the report counts"
            " both." + _ON_TIES,
        ),
        Method(
            "tall_mask",
            Everything(),
            TALL_MASK,
            "rebuild one model from its mask over the sum of the task vectors",
            "base + [|tau_t| > scale_t |S - tau_t|] * S, S = sum_t w_t tau_t",
            _TALL_PAPER,
            "scale as in consensus. `breadcrumbs compress` writes all tasks to one file."
            + _ON_TIES,
        ),
        Method(
            "emr",
            Everything(),
            EMR,
            "elect one vector for all tasks; with a task, mask and rescale it for that one",
            "base + U, U = s max{|w_t tau_t|: sign(tau_t) = s}, s = sign(sum_t w_t tau_t); with a"
            " task, base + r_t * m_t * U, m_t = [sign(tau_t) = s], r_t = |tau_t|_1 / |m_t U|_1",
            "Huang et al., EMR-Merging, NeurIPS 2024, arXiv:2405.17461",
            "A sum of 0 is negative. The rescaler is of the whole model; the authors' program adds"
            " up the means of the tensors instead. A task takes a pass more.",
            emr.caution,
        ),
        Method(
            "tatr",
            Everything(),
            TATR,
            "add the task vectors but for the entries where they conflict most",
            "base + alpha * [Omega has rank <= floor(quantile N)] * sum_t w_t tau_t, "
            "Omega = (sum_t |w_t tau_t|)^2 - sum_t |w_t tau_t|^2",
            "Sun et al., Task Arithmetic in Trust Region, ICLR 2025, arXiv:2501.15065",
            "Without data: task vectors stand for gradients. Equal Omega rank by position; the"
            " program keeps what is strictly below the value of that rank, which may be nothing.",
        ),
        Method(
            "pcb",
            Everything(),
            PCB,
            "average the task vectors entry by entry, by how each competes with all others",
            "base + alpha * sum_t sign(tau_t) a_t s_t / max(sum_t s_t, 1e-12), s_t = min-max of the"
            " top `ratio` of exp(T minmax(a_t)^2) tanh(tau_t sum tau), a_t = |tau_t| without edges",
            "Du et al., Parameter Competition Balancing, NeurIPS 2024, arXiv:2410.02396",
            "Ranks are of the whole model. Reads it up to 9 times, so it is slow.",
        ),
        Method(
            "lines",
            Everything(),
            LINES,
            "add the task vectors, scaled up with the depth of their layer",
            "base + (alpha + beta l / (L - 1)) * sum_t weight_t * tau_t, l the layer of L",
            "Wang et al., LiNeS, ICLR 2025, arXiv:2410.17146",
            "beta is searched on validation data in the paper; .5 is not published. Layers of all"
            " stacks of a model count from one L, the largest number found and one.",
        ),
        Method(
            "tvq",
            TVQ,
            scaled_sum(0.3),
            "add the task vectors as they come back from a few bits an entry",
            "base + alpha * sum_t weight_t * Q(tau_t), Q: `bits` bits, min to max of the tensor",
            _TVQ_PAPER,
            "alpha as in task_arithmetic. A tensor of equal entries comes back as it is.",
        ),
        Method(
            "rtvq",
            RTVQ,
            scaled_sum(0.3),
            "add the task vectors as they come back from a shared base and offsets of a few bits",
            "base + alpha * sum_t weight_t * (B + Q(tau_t - B)), B = Q(mean_t tau_t)",
            _TVQ_PAPER,
            "alpha as in task_arithmetic. A model that lacks a tensor counts with zeros.",
        ),
        Method(
            "localize_and_stitch",
            largest("0.10", unit="model"),
            STITCH,
            "keep the largest entries of each task vector; where they overlap, average",
            "base + alpha * sum_t m_t tau_t / max(1, sum_t m_t), "
            "m_t = [rank |tau_t| > N - floor(density N)] of the model",
            "He et al., Localize-and-Stitch, TMLR 2025, arXiv:2408.13656",
            "The variant without data. The authors' program keeps one entry less.",
        ),
        Method(
            "nearswap",
            Everything(),
            NEARSWAP,
            "move the base towards one model, each entry by at most t",
            "base + clip(weight * tau, -t, t)",
            "Alchemonaut, QuartetAnemoi, 2024; as mergekit documents it",
        ),
        Method(
            "slerp",
            Everything(),
            SLERP,
            "the arc from the base to one model, whole weights",
            "sin((1 - t) w) / sin w * base + sin(t w) / sin w * model, w = angle(base, model); "
            "(1 - t) base + t model where |cos w| > .9995",
            "Shoemake, Animating Rotation with Quaternion Curves, SIGGRAPH 1985; of weights as"
            " mergekit documents it",
        ),
        Method(
            "nuslerp",
            Everything(),
            NUSLERP,
            "the arc between two task vectors (or two models)",
            "base + sin((1 - t) w) / sin w * tau_1 + sin(t w) / sin w * tau_2, "
            "t = weight_2 / (weight_1 + weight_2), w = angle(tau_1, tau_2)",
            "mergekit, NuSLERP, 2024",
        ),
        Method(
            "multislerp",
            Everything(),
            MULTISLERP,
            "the mean direction of the task vectors (or models) at their mean length",
            "base + (sum_t w_t |tau_t|) * d / |d|, d = sum_t w_t tau_t / |tau_t|, "
            "w = weights / sum of weights",
            "Goddard, Multi-SLERP, 2025; as mergekit documents it",
        ),
        Method(
            "karcher",
            Everything(),
            KARCHER,
            "the Karcher mean of the models' directions at their mean length",
            "mean_t |model_t| * m, m <- exp_m(mean_t log_m(model_t / |model_t|)) "
            "until |step| < tol or max_iter",
            "Karcher, Riemannian center of mass and mollifier smoothing, Comm. Pure Appl. Math."
            " 1977; of weights as mergekit documents it",
        ),
        Method(
            "model_stock",
            Everything(),
            MODEL_STOCK,
            "from the base towards the mean of the models, as far as their angle tells",
            "base + r * mean_t tau_t, r = min(1, T c / (1 + (T - 1) c)) if c > 0 else 0, "
            "c = mean over pairs of cos(tau_s, tau_t)",
            "Jang, Yun and Han, Model Stock, ECCV 2024, arXiv:2403.19522",
        ),
        Method(
            "tsv_m",
            Everything(),
            TSV_M,
            "put the leading singular triplets of all task vectors side by side and make them"
            " orthogonal",
            "base + alpha * polar([U_1..U_T]) diag(S_1..S_T) polar([V_1..V_T])^T, "
            "max(1, floor(min(m, n) / T)) triplets of each weight_t tau_t",
            "Gargiulo et al., Task Singular Vectors, CVPR 2025, arXiv:2412.00081",
            _MATRICES,
        ),
        Method(
            "iso_c",
            Everything(),
            ISO_C,
            "the sum of the task vectors with all singular values equal",
            "base + alpha * mean(s) U V^T, U diag(s) V^T = sum_t weight_t tau_t",
            _ISO_PAPER,
            _MATRICES,
        ),
        Method(
            "iso_cts",
            Everything(),
            ISO_CTS,
            "common directions and each task's own, all with one singular value",
            "base + alpha * mean(s) polar(U) polar(V)^T; U, s, V: "
            "k = round((d - floor(common d)) / T) leading triplets of each "
            "(I - C C^T) weight_t tau_t, then d - T k of their sum"
            " (left vectors C), d = min(m, n)",
            _ISO_PAPER,
            _MATRICES + " At least one direction stays common.",
        ),
        Method(
            "star",
            Everything(),
            STAR,
            "cut each task vector to its leading singular values, scale them up, take the mean",
            "base + alpha * mean_t(|s|_1 / |s_1..r|_1 * U_r diag(s_1..r) V_r^T), "
            "r least with |s_1..r|_1 >= eta |s|_1",
            "Lee et al., STAR, NAACL 2025, arXiv:2502.10339",
            _MATRICES,
        ),
        Method(
            "wudi",
            Everything(),
            WUDI,
            "move the sum towards the matrix that interferes least with each task's inputs",
            "base + alpha * M, M from sum_t tau_t by `steps` of Adam on "
            "sum_t |(M - tau_t) tau_t^T|^2 / |tau_t|^2",
            "Cheng et al., Whoever Started the Interference Should End It, ICML 2025,"
            " arXiv:2503.08099",
            _MATRICES + " Slow: one product of an m x n and an n x n matrix a step.",
        ),
        Method(
            "sce",
            Everything(),
            SCE,
            "select entries by variance, weight by energy, erase the minority's sign",
            "base + sum_t e_t a_t tau_t / sum_t e_t a_t, e_t = |tau_t|^2 after selection, "
            "a_t = [tau_t has the sign of sum tau]",
            "Wan et al., FuseChat, 2024, arXiv:2408.07990",
        ),
        Method(
            "cabs",
            Everything(),
            CABS,
            "n:m pruning of one task vector after the other, none over another (order matters)",
            "base + alpha * sum_t m_t weight_t tau_t, "
            "m_t = the n largest |tau_t| of each m entries that no earlier model has",
            "Yang et al., CABS, ICML 2025, arXiv:2503.01874",
            "n and m are searched in the paper; 64 of 256 is not checked against it, and has places"
            " for four models: with more, give n below m / T.",
            cabs.caution,
        ),
        Method(
            "fisher",
            Everything(),
            FISHER,
            "the mean of the models, each entry weighted by how much it matters to each",
            "sum_t weight_t F_t model_t / sum_t weight_t F_t, F_t the diagonal Fisher information",
            "Matena and Raffel, Fisher-Weighted Averaging, NeurIPS 2022, arXiv:2111.09832",
            "The weighted mean where no F_t is above 0. Of training or validation data, never of"
            " test data.",
        ),
        Method(
            "regmean",
            Everything(),
            REGMEAN,
            "linear layers whose outputs are nearest to all models', on the inputs of each",
            "(sum_t weight_t W_t G_t) (sum_t weight_t G_t + ridge)^-1, "
            "G_t = X_t^T X_t of its inputs, off the diagonal times off_diagonal",
            "Jin et al., Dataless Knowledge Fusion (RegMean), ICLR 2023, arXiv:2212.09849",
            "What has no Gram matrix gets the weighted mean. The paper has off_diagonal .9, and no"
            " ridge. Of training or validation data, never of test data.",
        ),
    )
}

#: For pairs that are not in the table, `transform+aggregate`.
TRANSFORMS: dict[str, Transform] = {
    "none": Everything(),
    "breadcrumbs": BREADCRUMBS,
    "magnitude": largest("0.20"),
    "top_masking": TOP_MASKING,
    "random_mask": RANDOM_MASK,
    "dare": DROP,
    "della": MAGPRUNE,
    "tvq": TVQ,
    "rtvq": RTVQ,
}
AGGREGATES: dict[str, Aggregate] = {
    "sum": scaled_sum(AUTO),
    "mean": MEAN,
    "elect": election("mean", 1.0),
    "consensus": CONSENSUS,
    "stitch": STITCH,
    "tatr": TATR,
    "pcb": PCB,
    "lines": LINES,
    "nuslerp": NUSLERP,
    "multislerp": MULTISLERP,
    "model_stock": MODEL_STOCK,
    "tsv_m": TSV_M,
    "iso_c": ISO_C,
    "iso_cts": ISO_CTS,
    "star": STAR,
    "wudi": WUDI,
    "sce": SCE,
}
#: Aggregates that are methods by themselves, and why no transform goes with them.
ALONE: dict[str, str] = {
    "slerp": "slerp turns whole weights, not task vectors",
    "karcher": "karcher averages whole weights, not task vectors",
    "nearswap": "nearswap clips the task vector itself",
    "cabs": "cabs prunes by itself",
    "fisher": "fisher averages whole weights, not task vectors",
    "regmean": "regmean averages whole weights, not task vectors",
}
