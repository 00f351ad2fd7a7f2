"""Asks a server for its hardware: for `client.hardware`, and for plans of what fits into the memory."""

from lmstudio_integrations.client.concurrency.flows import Flow
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.types.hardware import HardwareSurvey


def survey_hardware(operation: Operation) -> Flow[HardwareSurvey]:
    """Return the hardware of the server's own machine."""
    read = HardwareSurvey.read
    return (yield from operation.call("runtime", "surveyHardware", None, read, label="Hardware survey"))
