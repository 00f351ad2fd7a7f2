"""Plans of downloads: what an artifact of the hub needs, in which forms (`docs/protocol.md#create-download-plan`)."""

from typing import ClassVar

from lmstudio_integrations.types._wire_model import WireModel


class DownloadPlanOption(WireModel):
    """A form of a model: one that can be downloaded, or one that is there.

    Attributes:
        display_name: Its name for people.
        size_bytes: Its size on disk.
        compatibility_type: Its format, such as `gguf`.
        quant_name: Its quantization, such as `Q4_K_M`.
        model_key: The key to load it with, once it is chosen or downloaded.
        fit_estimation: Whether it fits the machine, as in `DownloadOptionInfo`.
        availability: `notDownloaded`, `downloading` or `downloaded`.
        recommended: Whether the server recommends it.
    """

    display_name: str
    size_bytes: int
    compatibility_type: str | None = None
    quant_name: str | None = None
    model_key: str | None = None
    fit_estimation: str | None = None
    availability: str | None = None
    recommended: bool | None = None


class DownloadPlanNode(WireModel):
    """A part of a plan: an artifact, or a model that one needs.

    Attributes:
        type: `artifact` or `model`; a newer server may have others.
        state: `pending`, `fetching`, `satisfied` (nothing to do) or `completed`.
        owner: The owner of an artifact.
        name: The name of an artifact.
        artifact_type: Such as `model`, `plugin` or `preset`.
        size_bytes: The size of an artifact without what it needs.
        dependency_nodes: What an artifact needs, as indices of nodes.
        dependency_label: The name of a model.
        already_owned: The form of a model that is downloaded already.
        selected: The form of a model that will be downloaded.
        download_options: The forms of a model.
        selected_download_option_index: The one that will be downloaded. `None` keeps what is there.
        recommended_download_option_index: The one that the server recommends.
    """

    nullable: ClassVar[frozenset[str]] = WireModel.nullable | {
        "selected_download_option_index",
        "recommended_download_option_index",
    }

    type: str
    state: str | None = None
    owner: str | None = None
    name: str | None = None
    artifact_type: str | None = None
    size_bytes: int | None = None
    dependency_nodes: list[int] | None = None
    dependency_label: str | None = None
    already_owned: DownloadPlanOption | None = None
    selected: DownloadPlanOption | None = None
    download_options: list[DownloadPlanOption] | None = None
    selected_download_option_index: int | None = None
    recommended_download_option_index: int | None = None

    @property
    def chosen(self) -> DownloadPlanOption | None:
        """The form in which a model will be there: the selected one, else the one that is there."""
        return self.selected or self.already_owned


class DownloadPlan(WireModel):
    """What a download would fetch.

    Attributes:
        nodes: The artifact that was requested, then what it needs.
        download_size_bytes: How much is to be downloaded.
        download_action: `none`, `startNewDownload`, or `attachToExistingDownload` if it is being downloaded already.
        download_job_identifier: The download that is running.
        version: Counts the changes of the client.
    """

    nodes: list[DownloadPlanNode]
    download_size_bytes: int
    download_action: str | None = None
    download_job_identifier: str | None = None
    version: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to download."""
        is_running = self.download_action == "attachToExistingDownload"
        return self.download_action == "none" or not (self.download_size_bytes or is_running)

    @property
    def models(self) -> dict[int, DownloadPlanNode]:
        """The models, by the indices of their nodes."""
        return {index: node for index, node in enumerate(self.nodes) if node.type == "model"}

    @property
    def model_keys(self) -> list[str]:
        """The keys to load the models with, as far as the server has named them."""
        return [node.chosen.model_key for node in self.models.values() if node.chosen and node.chosen.model_key]
