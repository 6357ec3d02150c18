"""What the papers measure, as plain functions of tensors: the caller says what they were computed on.

Whether what is generated is right:
`coherence` (conditional, joint, leave-one-out) by the judges of `classifiers`, which say how good they are themselves;
`semi_supervised` (accuracy, F1) beside comparison classifiers; `cca` (images with captions), on the features of
`bird_features` and the vectors of `sentences`.

What a set of pairs shares:
`entanglement` (a shuffle test within classes, without a model).

What the latents hold:
`probes` (a linear layer), `clustering` (k-means, purity, the inertia curve), `latents` (divergences of each dimension).

How far what is generated is from the data:
`likelihood` (importance sampling, with its effective sample size and its ceiling), `frechet` (distances on features, and
copies of training items, which no distance sees).

Functions whose names speak for themselves can be imported from here, the others from their module, such as
`frechet.frechet` and `likelihood.table`.  Each module says what its measure does not see.  A model is put into evaluation mode while it is asked and comes back as it
was; data are brought to its device in chunks; draws come from an explicit generator or seed.
"""

from mmvae_lite.evaluation import bird_features, frechet, sentences
from mmvae_lite.evaluation.cca import cross_correlation, fit_caption_judge, joint_correlation, real_correlation
from mmvae_lite.evaluation.classifiers import classifier, judges_for, train_judge
from mmvae_lite.evaluation.clustering import cluster_purity, inertia_curve
from mmvae_lite.evaluation.coherence import conditional_coherence, joint_coherence, leave_one_out_coherence
from mmvae_lite.evaluation.entanglement import shuffle_test
from mmvae_lite.evaluation.latents import expert_divergences, per_dimension_kl, symmetric_kl
from mmvae_lite.evaluation.likelihood import log_likelihood
from mmvae_lite.evaluation.probes import posteriors, probe_means, probe_samples
from mmvae_lite.evaluation.semi_supervised import attribute_scores, binary_scores, label_accuracy

__all__ = [
    "attribute_scores",
    "binary_scores",
    "bird_features",
    "classifier",
    "cluster_purity",
    "conditional_coherence",
    "cross_correlation",
    "expert_divergences",
    "fit_caption_judge",
    "frechet",
    "inertia_curve",
    "joint_coherence",
    "joint_correlation",
    "judges_for",
    "label_accuracy",
    "leave_one_out_coherence",
    "log_likelihood",
    "per_dimension_kl",
    "posteriors",
    "probe_means",
    "probe_samples",
    "real_correlation",
    "sentences",
    "shuffle_test",
    "symmetric_kl",
    "train_judge",
]
