"""An audit of models that were trained elsewhere, from what they said of records whose membership is known.

`evidence` is what was said, `sources` reads it from files of several `formats`, `crossfit` fits attacks without shadow
models, `running` runs all attacks that the evidence allows, `folder` writes what they found.
"""

from miaprune.audit.evidence import References, Version, of_logits, of_posteriors, query, references
from miaprune.audit.folder import write
from miaprune.audit.running import Audit, run

__all__ = ["Audit", "References", "Version", "of_logits", "of_posteriors", "query", "references", "run", "write"]
