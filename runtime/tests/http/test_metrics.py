from site_in_memory import CHAT, Site


def test_metrics_count_requests_and_tokens(site: Site) -> None:
    site.client.post("/v1/chat/completions", json=CHAT)
    site.client.post("/v1/chat/completions", json=CHAT | {"model": "missing"})
    text = site.client.get("/metrics").text
    for line in (
        'vllm:num_requests_running{model_name="m"} 0.0',
        'vllm:num_requests_waiting{model_name="m"} 0.0',
        'vllm:kv_cache_usage_perc{model_name="m"} 0.0',
        'vllm:gpu_cache_usage_perc{model_name="m"} 0.0',
        'vllm:lora_requests_info{max_lora="2",running_lora_adapters="",waiting_lora_adapters=""}',
        'vllm:generation_tokens_total{model_name="m"} 5.0',
        'vllm:prompt_tokens_total{model_name="m"} 8.0',
        'vllm:time_to_first_token_seconds_count{model_name="m"} 1.0',
        'vllm:time_per_output_token_seconds_count{model_name="m"} 4.0',
        'kaito_requests_total{model="m"} 1.0',
        'kaito_adapter_requests_total{adapter="a"} 1.0',
        'kaito_requests_refused_total{code="model_not_found"} 1.0',
        'kaito_adapter_strength{adapter="a"} 0.5',
        'kaito_adapter_state{adapter="bad",state="Failed"} 1.0',
        "kaito_configuration_generation 7.0",
        "kaito_serving_generation 7.0",
    ):
        assert line in text
