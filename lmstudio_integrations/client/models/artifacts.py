"""Download an artifact of the hub: the server plans it, the caller may change the plan, and the server carries it out.

See docs/protocol.md#create-download-plan. `repository.py` has the models that a search finds.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lmstudio_integrations._support.text import shown
from lmstudio_integrations._support.typeguards import is_count, is_mapping
from lmstudio_integrations.client.models.repository import DownloadReport, OnDownload, formats_of, no_quantization
from lmstudio_integrations.client.support.arguments import check_callbacks, text_of
from lmstudio_integrations.client.support.progress_bars import ShowProgress
from lmstudio_integrations.client.transport.flows import Flow, call_back
from lmstudio_integrations.client.transport.operation import Call, Operation, decode_errors
from lmstudio_integrations.errors import LMStudioProtocolError, LMStudioValueError
from lmstudio_integrations.protocol.endpoints import channel
from lmstudio_integrations.protocol.requests import (
    ARTIFACT,
    ArtifactTarget,
    CreateDownloadPlan,
    PlanParameters,
    QuantizationPreference,
    kebab_case,
)
from lmstudio_integrations.protocol.session import closed_early
from lmstudio_integrations.types.download_plans import DownloadPlan, DownloadPlanOption

OnPlan = Callable[[DownloadPlan], Any]

_ENDPOINT = channel("repository", "createDownloadPlan")


def download_artifact(
    operation: Operation,
    artifact: str,
    *,
    quantization: str | None,
    compatibility_types: Sequence[str] | None,
    on_plan: OnPlan | None,
    on_progress: OnDownload | None,
    on_finalize: Callable[[], Any] | None,
    show_progress: ShowProgress,
) -> Flow[DownloadPlan | None]:
    """Download an artifact and what it needs; return the plan, or `None` if `on_plan` has rejected it."""
    target, options = artifact_target(artifact), PlanParameters()
    if quantization is not None:
        text_of(quantization, "quantization")
        options["resolutionPreference"] = [QuantizationPreference(type="quantName", quantName=quantization)]
    if compatibility_types is not None:
        options["compatibilityTypes"] = formats_of(compatibility_types)
    check_callbacks(operation.context.is_async, on_plan=on_plan)
    report = DownloadReport(artifact, on_progress, on_finalize, show_progress)
    parameter, label = CreateDownloadPlan(target=target, opts=options), "Artifact download"
    # Until the commit, the end of the block cancels the plan, and after it, the download.
    with operation.start("repository", _ENDPOINT, parameter, label=label) as call:
        planned = _Planned(call, label)
        plan = yield from planned.until("planReady")
        if quantization is not None:
            plan = yield from planned.choose(plan, choices_of(plan, quantization))
        agreed: DownloadPlan | None = None
        while plan != agreed:
            call.suspend()  # people may take any time
            answer = yield from call_back("on_plan", on_plan, plan)
            if answer is False:
                return None
            changes = _changes(plan, answer)
            agreed = None if changes else plan
            plan = yield from planned.choose(plan, changes)
        if plan.is_empty:
            return plan
        call.send({"type": "commit"}, stop="cancelDownload")
        return (yield from planned.carry_out(plan, report))


def artifact_target(artifact: str) -> ArtifactTarget:
    """Return how requests name an artifact.

    Raises:
        LMStudioValueError: If the hub has no such names; the error suggests a near one.
    """
    match = ARTIFACT.fullmatch(text_of(artifact, "artifact"))
    if match is not None:
        return ArtifactTarget(type="artifact", owner=match["owner"], name=match["name"])
    name, _, quantization = artifact.partition("@")
    spelled = name if ARTIFACT.fullmatch(name) else kebab_case(name)
    if spelled is None:
        remedy = "for example 'qwen/qwen3-4b'"
    elif quantization:
        remedy = f"pass quantization={quantization!r} beside {spelled!r}"
    else:
        remedy = "omit the @" if spelled == name else f"did you mean {spelled!r}?"
    raise LMStudioValueError(f"artifact must be owner/name in kebab case; got {shown(artifact)}; {remedy}")


class _Planned:
    """The packets of a plan."""

    def __init__(self, call: Call, label: str) -> None:
        self._call = call
        self._label = label
        self._packets: deque[dict[str, Any]] = deque()

    def _add(self, batch: list[dict[str, Any]]) -> None:
        if not batch:
            raise closed_early(self._label)
        self._packets += batch

    def _next(self) -> Flow[dict[str, Any]]:
        while not self._packets:
            self._add((yield self._call))
        return self._packets.popleft()

    def _plan_in(self, packet: Mapping[str, Any]) -> DownloadPlan:
        with decode_errors(self._label):
            return DownloadPlan.from_dict(packet["plan"])

    def until(self, kind: str, version: int = 0) -> Flow[DownloadPlan]:
        """Return the plan of the next packet of a type, once it has a version."""
        while True:
            packet = yield from self._next()
            if packet["type"] == kind:
                plan = self._plan_in(packet)
                if plan.version >= version:
                    return plan

    def _newest(self, plan: DownloadPlan) -> DownloadPlan:
        """Return the plan of the last update that has arrived, without waiting; this plan if there is none."""
        batch = self._call.mailbox.pop_all()
        if batch is not None:
            self._add(batch)
        while self._packets:
            packet = self._packets.popleft()
            if packet["type"] == "planUpdated":
                plan = self._plan_in(packet)
        return plan

    def choose(self, plan: DownloadPlan, choices: Mapping[int, int | None]) -> Flow[DownloadPlan]:
        """Have the server choose the options of nodes; return the plan as it is then, also if it changed by itself.

        Raises:
            LMStudioProtocolError: If the server has not chosen them.
        """
        if not choices:
            return self._newest(plan)
        for version, (node, option) in enumerate(choices.items(), plan.version + 1):
            self._call.send(
                {
                    "type": "setSelectedDownloadOptionIndex",
                    "nodeIndex": node,
                    "selectedDownloadOptionIndex": option,
                    "requestedPlanVersion": version,
                }
            )
        changed = yield from self.until("planUpdated", plan.version + len(choices))
        if any(
            node not in changed.models or changed.nodes[node].selected_download_option_index != option
            for node, option in choices.items()
        ):
            raise LMStudioProtocolError(f"{self._label}: the server has not chosen the requested download option")
        return changed

    def carry_out(self, plan: DownloadPlan, report: DownloadReport) -> Flow[DownloadPlan]:
        """Report the download until its end; return the plan as it is then."""
        with report.bar:
            while (packet := (yield from self._next()))["type"] != "success":
                if packet["type"] == "planUpdated":
                    plan = self._plan_in(packet)
                with decode_errors(self._label):
                    effect = report.read(packet)
                if effect is not None:
                    effect()
            self._call.server_is_done = True
            report.bar.update(1.0)
        return plan


def choices_of(plan: DownloadPlan, quantization: str) -> dict[int, int | None]:
    """Return which options to choose so that the models that come with a quantization, in any case, have it.

    Raises:
        LMStudioValueError: If none of them comes with it.
    """
    choices: dict[int, int | None] = {}
    is_there = False
    for index, node in plan.models.items():
        if _has(node.chosen, quantization):
            is_there = True
        elif _has(node.already_owned, quantization):
            choices[index] = None
        else:
            for number, option in enumerate(node.download_options or ()):
                if _has(option, quantization):
                    choices.setdefault(index, number)
    if choices or is_there:
        return choices
    forms = [form for node in plan.models.values() for form in (node.chosen, *(node.download_options or ()))]
    raise no_quantization(quantization, (form.quant_name for form in forms if form is not None))


def _has(form: DownloadPlanOption | None, quantization: str) -> bool:
    return form is not None and (form.quant_name or "").casefold() == quantization.casefold()


def _changes(plan: DownloadPlan, answer: object) -> dict[int, int | None]:
    """Return what the result of `on_plan` changes in a plan.

    Raises:
        LMStudioValueError: If it is neither a bool nor a dict, or the plan has no such node or option.
    """
    if answer is None or answer is True:
        return {}
    if not is_mapping(answer):
        raise LMStudioValueError(f"on_plan must return a bool, None, or a dict of options; got {shown(answer)}")
    changes: dict[int, int | None] = {}
    for index, option in answer.items():
        node = plan.models.get(index) if is_count(index) else None
        options = len(node.download_options or ()) if node else 0
        if node is None or not (option is None or (is_count(option) and option < options)):
            raise LMStudioValueError(f"the plan has no download option {shown(option)} at the node {shown(index)}")
        if node.selected_download_option_index != option:
            changes[index] = option
    return changes
