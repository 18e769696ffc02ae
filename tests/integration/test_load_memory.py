"""Loading takes no more memory than the packed weights and a little: a synthetic model is loaded cold, warm and from
a pack cache by kttune bench load, which reads the peak of resident memory of each load from the kernel (VmHWM). A
copy of the file's pages beside the weights, or mapped pages that are not given back, would be three times the bound.
The model is small so that it fits any test machine; kttune bench load shows the same figure for any model."""
import json
import os
import subprocess
import sys
import tempfile

BOUND = 48 << 20
BUILD = os.environ.get("KT_BUILDDIR", "build")
CONFIG = {
    "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_size": 1024, "num_hidden_layers": 2,
    "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 128, "intermediate_size": 2048,
    "moe_intermediate_size": 768, "num_experts": 64, "num_experts_per_tok": 4, "norm_topk_prob": True,
    "vocab_size": 4096, "rms_norm_eps": 1e-6, "rope_theta": 1e6, "max_position_embeddings": 4096,
    "tie_word_embeddings": False, "hidden_act": "silu", "decoder_sparse_step": 1, "mlp_only_layers": [],
}


def bench(*args):
    out = subprocess.run([f"{BUILD}/kttune", "bench", "load", "--json", "--quiet", "--rounds", "3", *args],
                         stdout=subprocess.PIPE, check=True, timeout=600)
    return json.loads(out.stdout)


def main():
    if not os.access(f"{BUILD}/kttune", os.X_OK):
        print(f"{BUILD}/kttune was not built")
        return 77
    with open(f"{BUILD}/config.h") as f:
        if "#define KT_SANITIZED" in f.read():
            print("a sanitizer's own memory lies beside the weights: the bound says nothing here")
            return 77
    with tempfile.TemporaryDirectory(prefix="kt-load-") as tmp:
        config, model, cache = f"{tmp}/config.json", f"{tmp}/m.gguf", f"{tmp}/cache"
        os.mkdir(cache)
        with open(config, "w") as f:
            json.dump(CONFIG, f)
        subprocess.run([f"{BUILD}/kttune", "synth", "--config", config, "--format", "mxfp4", "-o", model], check=True,
                       stdout=subprocess.DEVNULL, timeout=600)
        for args in ([], ["--pack-cache", cache]):
            r = bench("-m", model, *args)
            if not r["peak_resident_bytes"]:
                print("this kernel does not tell the peak of resident memory")
                return 77
            beside = r["peak_resident_bytes"] - r["weight_bytes"]
            print(f"{' '.join(args[:1]) or 'files'}: {r['weight_bytes'] >> 20} MiB of weights from "
                  f"{r['file_bytes'] >> 20} MiB, {beside / 2**20:.1f} MiB beside them")
            assert r["file_bytes"] > 3 * BOUND, r
            assert beside < BOUND, r
            assert r["cold_gb_s"] > 0 and r["warm_gb_s"] > 0 and 0 < r["load_bytes"] <= r["file_bytes"], r
            if "--pack-cache" in args:
                assert r["cache_cold_gb_s"] > 0 and r["cache_warm_gb_s"] > 0, r
                assert len(os.listdir(cache)) == 1
    return 0


sys.exit(main())
