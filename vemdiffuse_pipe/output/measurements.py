"""What the voxels of a source say before a run: its contrast, and sections that hold no usable data."""

from __future__ import annotations

from dataclasses import replace

from vemdiffuse_pipe.models.card import find_card
from vemdiffuse_pipe.output.choices import with_choices_of
from vemdiffuse_pipe.output.run_output import RunOutput
from vemdiffuse_pipe.plan.plan import Plan, make_plan
from vemdiffuse_pipe.storage.retry import RetryPolicy, with_retries
from vemdiffuse_pipe.survey.contrast import measure_contrast
from vemdiffuse_pipe.survey.lost_sections import without_lost_sections
from vemdiffuse_pipe.volume import Source


def with_measurements(plan: Plan, source: Source, output: RunOutput | None = None) -> Plan:
    """The plan with what its voxels say. An output that exists was made with answers: these are used again,
    and so is what was chosen where the run file leaves it open.

    Raises SourceError, PlanError, DataError, TransientError.
    """
    if output is not None:
        plan = with_choices(plan, output)
    if output is not None and _asks_the_same(output, plan):
        return make_plan(plan.run_file, plan.source, plan.card, output.measured)
    return with_contrast(without_lost_sections(plan, source), source)


def with_choices(plan: Plan, output: RunOutput) -> Plan:
    """The plan, what its run file leaves open taken from `output`. Raises OutputError, PlanError."""
    model = with_choices_of(output.run_file.model, plan.run_file.model)
    run_file = plan.run_file.model_copy(update={"model": model})
    card = plan.card if model.name == plan.run_file.model.name else find_card(model.name, model.task)
    return make_plan(run_file, plan.source, card, plan.measured)


def with_contrast(plan: Plan, source: Source) -> Plan:
    """The plan with the contrast of the volume, measured where a model needs it and nobody stated it."""
    if not plan.card.needs_contrast or plan.contrast is not None:
        return plan
    contrast = with_retries(
        lambda: measure_contrast(source, plan.gaps.rejected), RetryPolicy(), lambda reason: None
    )
    return replace(plan, measured=replace(plan.measured, contrast=contrast))


def plan_of(output: RunOutput, plan: Plan) -> Plan:
    """`plan`, made from the run file of `output`, with what was measured when the output was created."""
    return make_plan(plan.run_file, plan.source, plan.card, output.measured)


def _asks_the_same(output: RunOutput, plan: Plan) -> bool:
    """True where the same was asked of the same source.

    Older outputs hold the answers among the questions.
    """
    stored, asked = output.run_file.source, plan.run_file.source
    if not output.has_measured:
        answers = {"rejected_sections": asked.rejected_sections, "contrast": asked.contrast}
        stored = stored.model_copy(update=answers)
    return stored == asked
