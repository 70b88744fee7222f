"""The JSON Schema of a preset as a document, generated from `ModelPreset`, for editors and other programs."""

import json
from typing import Any

from kaito_core.api.preset.model import PRESET_API_VERSION, PRESET_KIND, PRESET_NAME, ModelPreset

__all__ = ["preset_schema"]


def preset_schema() -> dict[str, Any]:
    """Returns the schema. Rules between fields are not in it: only reading the document checks them."""
    schema = ModelPreset.model_json_schema()
    schema["properties"]["weights"] = schema.pop("$defs")["Weights"]
    head = {
        "apiVersion": {"const": PRESET_API_VERSION, "description": "Version of this schema."},
        "kind": {"const": PRESET_KIND, "description": "What the document is."},
    }
    schema["properties"]["name"]["pattern"] = f"^{PRESET_NAME.pattern}$"
    schema["properties"] = {**head, **schema["properties"]}
    schema["required"] = [*head, *schema["required"]]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


if __name__ == "__main__":
    print(json.dumps(preset_schema(), indent=2))
