"""Each kind of folder in `adapter_defects` is refused before it is loaded, with what is wrong, or applied exactly."""

import importlib.util
import json
import re
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
import torch
from adapter_defects import CASES, GOOD, Case
from live import Live, serving
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from kaito_core.api.peft.config import parse_config
from kaito_core.api.peft.keys import EXACT, HARMLESS, HEADS, REFUSED, TASKS
from kaito_core.api.peft.patterns import is_bounded
from kaito_core.api.peft.report import examine
from kaito_core.api.serving import ServedAdapter, ServedModel, ServingConfig
from kaito_runtime.errors import AdapterLoadError
from kaito_runtime.formats.files import read_adapter
from kaito_runtime.formats.peft_config import is_pefts_default
from kaito_runtime.lora.inject import LoraModel, inject_lora
from kaito_runtime.testing.models import load_fp32, save_adapter

ROOT = Path(__file__).parents[3]
ALL = [pytest.param(case, id=f"{part}: {case.name}") for part, cases in CASES.items() for case in cases]
REFUSALS = [param for param in ALL if param.values[0].words is not None]
EXACT_CASES = [param for param in ALL if param.values[0].words is None]
TOLERANCE = 1e-4
# Which layers the model has, their sizes, and its own weights.
ONLY_THE_MODEL_TELLS = (
    "a rank beyond the memory for adapters",
    "a layer beyond the model, with tensors",
    "more modules than there are tensors",
    "an embedding without tensors",
    "a block in place of its layers",
    "a module without its pair",
    "a model of another width",
    "a model with more key heads",
    "one tensor too many",
    "tensors of the vision part",
    "a larger vocabulary",
    "a trained bias",
    "modules_to_save that differ",
    "trained tokens beyond the vocabulary",
    "an adapted output head on another base weight",
    "an output head with a larger vocabulary",
    "an embedding with the names of a linear layer",
    "experts of a model without any",
    "a bare parameter that is no layer",
)


def slug(case: Case) -> str:
    return re.sub(r"[^a-z0-9]+", "-", case.name.lower()).strip("-")


class Workshop:
    """Builds the folders of the cases, each once."""

    def __init__(self, model: Path, folder: Path) -> None:
        self.model = model
        self.folder = folder
        self._trained: dict[str, Path] = {}

    def trained(self, case: Case) -> Path:
        """The folder as PEFT saved it."""
        key = repr((dict(case.train), dict(case.model)))
        if key not in self._trained:
            base = self._base(case)
            folder = self.folder / "trained" / str(len(self._trained))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # PEFT warns of what the cases are about
                self._trained[key] = save_adapter(base, folder, seed=1, std=0.1, **{**GOOD, **case.train})
        return self._trained[key]

    def damaged(self, case: Case) -> Path:
        """The folder after the damage."""
        folder = self.folder / "adapters" / slug(case)
        if not folder.exists() and not folder.is_symlink():
            shutil.copytree(self.trained(case), folder)
            case.damage(folder)
        return folder

    def _base(self, case: Case) -> Path | LlamaForCausalLM:
        if not case.model:
            return self.model
        torch.manual_seed(7)
        config = LlamaConfig.from_pretrained(self.model)
        return LlamaForCausalLM(LlamaConfig(**(config.to_dict() | dict(case.model))))


@pytest.fixture(scope="module")
def workshop(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tiny_llama, tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="module")
def ours(tiny_llama: Path) -> tuple[Any, LoraModel]:
    model = load_fp32(tiny_llama)
    return model, inject_lora(model)


@pytest.fixture(scope="module")
def live(workshop: Workshop, tiny_llama: Path) -> Iterator[Live]:
    """A server whose configuration names every case."""
    for param in ALL:
        workshop.damaged(param.values[0])
    names = [slug(param.values[0]) for param in ALL]
    config = ServingConfig(
        model=ServedModel(name="tiny"), adapters=tuple(ServedAdapter(name=name, strength=0) for name in names)
    )
    with serving(tiny_llama, config, adapters_dir=workshop.folder / "adapters") as live:
        yield live


def test_names_of_cases_differ() -> None:
    names = [slug(param.values[0]) for param in ALL]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("case", REFUSALS)
def test_what_cannot_be_applied_exactly_is_refused(case: Case, workshop: Workshop, ours: tuple[Any, LoraModel]) -> None:
    model, lora = ours
    before = len(lora.bank.resident())
    with pytest.raises(AdapterLoadError) as refusal:
        lora.bank.load(read_adapter(workshop.damaged(case), model, name="tuned"))
    assert case.words is not None and case.words in refusal.value.reason, refusal.value.reason
    assert str(refusal.value).startswith("adapter 'tuned' cannot be loaded: ")
    assert len(lora.bank.resident()) == before


@pytest.mark.parametrize("case", EXACT_CASES)
def test_what_is_applied_gives_what_peft_gives(
    case: Case, workshop: Workshop, ours: tuple[Any, LoraModel], tiny_llama: Path
) -> None:
    model, lora = ours
    version = lora.bank.load(read_adapter(workshop.damaged(case), model, name="tuned"))
    ids = torch.randint(0, 257, (2, 6), generator=torch.Generator().manual_seed(2))
    truth = load_fp32(tiny_llama)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base = truth(ids).logits
        folder = workshop.trained(case) if case.before else workshop.damaged(case)
        want = PeftModel.from_pretrained(truth, folder).eval()(ids).logits
        lora.routing.set([(ids.numel(), {version: 1.0})])
        got = model(ids).logits
    lora.bank.retire(version)
    assert (got - want).abs().max() <= TOLERANCE
    if case.name not in ("alpha 0", "B all zero"):  # the two that are the base model by right
        assert (base - want).abs().max() > 10 * TOLERANCE


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refused_name_is_never_the_base_model_and_the_server_stays_up(case: Case, live: Live) -> None:
    state = _state(live, case)
    if case.waits:
        assert state["state"] == "Loading" and "waiting for the files in" in state["message"]
    else:
        assert state["state"] == "Failed" and case.words is not None and case.words in state["message"]
    assert _ask(live, slug(case)).status_code == (503 if case.waits else 404)
    assert _ask(live, "tiny").status_code == 200


@pytest.mark.parametrize("case", EXACT_CASES)
def test_an_applied_name_answers(case: Case, live: Live) -> None:
    assert _state(live, case)["state"] == "Ready"
    assert _ask(live, slug(case)).status_code == 200


@pytest.mark.parametrize("case", [param.values[0] for param in ALL], ids=lambda case: case.name)
def test_kaito_adapter_check_refuses_nothing_that_is_served_and_most_of_what_is_not(
    case: Case, workshop: Workshop
) -> None:
    report = examine(workshop.damaged(case))
    assert report.works == (case.words is None or case.name in ONLY_THE_MODEL_TELLS), report.reason
    if report.works:
        assert report.digest.startswith("sha256:") and report.targets


def test_every_key_of_pefts_configuration_is_classified() -> None:
    known = {*EXACT, *HARMLESS, *REFUSED}
    assert not [field.name for field in fields(LoraConfig) if field.name not in known], (
        "PEFT has new keys: put each into one table of kaito_core.api.peft.keys, and a case into adapter_defects"
    )
    assert len(known) == len(EXACT) + len(HARMLESS) + len(REFUSED), "a key is in two tables"


def test_every_task_of_pefts_is_classified() -> None:
    assert {*TASKS, *HEADS} == {task.value for task in TaskType}


@pytest.mark.parametrize("key", [field.name for field in fields(LoraConfig) if field.name in REFUSED])
def test_the_default_of_a_refused_key_is_accepted_and_something_else_is_not(key: str) -> None:
    field = next(field for field in fields(LoraConfig) if field.name == key)
    parse_config(json.dumps({"peft_type": "LORA", key: field.default}).encode(), _refuse)
    with pytest.raises(AdapterLoadError, match=key):
        parse_config(json.dumps({"peft_type": "LORA", key: [1]}).encode(), _refuse)


@pytest.mark.parametrize(("value", "accepted"), [(16, True), (None, True), (17, False), (16.0, False)])
def test_a_key_in_no_table_is_accepted_with_pefts_default(
    monkeypatch: pytest.MonkeyPatch, value: object, accepted: bool
) -> None:
    """What a newer PEFT writes into every configuration does no harm while it has the default."""
    others = {key: why for key, why in HARMLESS.items() if key != "qalora_group_size"}
    monkeypatch.setattr("kaito_core.api.peft.config.HARMLESS", others)
    content = json.dumps({"peft_type": "LORA", "qalora_group_size": value}).encode()
    if accepted:
        parse_config(content, _refuse, has_no_effect=is_pefts_default)
    else:
        with pytest.raises(AdapterLoadError, match="qalora_group_size is set to"):
            parse_config(content, _refuse, has_no_effect=is_pefts_default)


@pytest.mark.parametrize(
    ("pattern", "bounded"),
    [
        (r".*decoder.*(SelfAttention|EncDecAttention).*(q|v)$", True),
        (r"(?:.*\.)?layers\.\d+\.(?!mlp)[^.]+\.(q|k|v)_proj", True),
        (r"(?:ab){3}(?>c|d)(e)?(?(1)f|g)", True),
        (r"(", True),  # what is not a regular expression is refused elsewhere
        (r"(a+)+b", False),
        (r"(a|a)*b", False),
        (r"(?:a?){30}a{30}", False),
        (r"(?=(.+)+x)", False),
        (r".*.*.*.*.*x", False),
        ("(" * 5000 + ")" * 5000, False),
    ],
)
def test_patterns_that_could_match_for_years_are_recognised(pattern: str, bounded: bool) -> None:
    assert is_bounded(pattern) is bounded


def test_links_of_the_hubs_cache_are_followed(workshop: Workshop, ours: tuple[Any, LoraModel], tmp_path: Path) -> None:
    good = workshop.trained(Case("good", None))
    snapshot, blobs = tmp_path / "snapshots" / "abc", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(good / name, blobs / name.upper())
        (snapshot / name).symlink_to(f"../../blobs/{name.upper()}")
    assert read_adapter(snapshot, ours[0], name="a").digest == read_adapter(good, ours[0], name="a").digest


def test_links_in_a_circle_are_refused(workshop: Workshop, ours: tuple[Any, LoraModel], tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").symlink_to(tmp_path / "adapter_config.json")
    with pytest.raises(AdapterLoadError, match=r"cannot be read|has no adapter_config.json"):
        read_adapter(tmp_path, ours[0], name="a")


def test_what_the_refusal_of_pissa_advises_works(
    workshop: Workshop, ours: tuple[Any, LoraModel], tmp_path: Path
) -> None:
    """PEFT converts the adapter to a plain one of twice the rank, which gives what the trained model gave."""
    trained = get_peft_model(load_fp32(workshop.model), LoraConfig(**GOOD, init_lora_weights="pissa"))
    trained.peft_config["default"].init_lora_weights = True  # as PEFT asks for, so that the start is saved as it is
    trained.save_pretrained(tmp_path / "start")
    trained.peft_config["default"].init_lora_weights = "pissa"
    for name, parameter in trained.named_parameters():
        if "lora_" in name:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    trained.save_pretrained(tmp_path / "plain", path_initial_model_for_weight_conversion=str(tmp_path / "start"))
    model, lora = ours
    version = lora.bank.load(read_adapter(tmp_path / "plain", model, name="plain"))
    ids = torch.arange(8)[None]
    lora.routing.set([(ids.numel(), {version: 1.0})])
    with torch.no_grad():
        assert (model(ids).logits - trained.eval()(ids).logits).abs().max() <= TOLERANCE
    lora.bank.retire(version)


def test_the_page_is_what_the_table_gives() -> None:
    page = ROOT / "docs" / "reference" / "adapter-checks.md"
    assert page.read_text(encoding="utf-8") == _generator().page(), (
        "regenerate it: python docs/reference/generate_adapter_checks.py"
    )


def _generator() -> ModuleType:
    path = ROOT / "docs" / "reference" / "generate_adapter_checks.py"
    spec = importlib.util.spec_from_file_location("adapter_checks_generator", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _refuse(reason: str) -> AdapterLoadError:
    return AdapterLoadError("tuned", reason)


def _state(live: Live, case: Case) -> dict[str, Any]:
    return next(entry for entry in live.get("/v1/adapters").json()["data"] if entry["name"] == slug(case))


def _ask(live: Live, model: str) -> httpx.Response:
    return live.post("/v1/completions", {"model": model, "prompt": "hello", "max_tokens": 1, "temperature": 0})
