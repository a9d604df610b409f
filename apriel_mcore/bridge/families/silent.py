"""Which keys of a config.json say nothing about what the decoder computes?

A key that is neither here nor among those of its family is refused: it might. So is `auto_map`, which
brings code of its own.
"""

_HISTORY = (
    "_name_or_path _model_name_or_path name_or_path _commit_hash transformers_version architectures "
    "tokenizer_class transformers.js_config is_llama_config is_composition finetuning_task "
    "task_specific_params problem_type prefix id2label label2id num_labels unsloth_fixed unsloth_version"
)
"""Who wrote the file, for which program and task."""

_TOKENS = "bos_token_id eos_token_id pad_token_id unk_token_id sep_token_id decoder_start_token_id"

_EXECUTION = (
    "initializer_range dtype torch_dtype use_bfloat16 pretraining_tp use_cache chunk_size_feed_forward "
    "return_dict output_attentions output_hidden_states torchscript tf_legacy_loss attn_implementation "
    "_attn_implementation _attn_implementation_autoset"
)
"""How weights are drawn, stored and split, and how a forward pass is arranged."""

_OTHER_MODELS = (
    "is_encoder_decoder is_decoder add_cross_attention cross_attention_hidden_size tie_encoder_decoder "
    "pruned_heads"
)
"""Older versions wrote these for every model; no class of our families reads them."""

_GENERATION = (
    "max_length min_length do_sample early_stopping temperature top_k top_p typical_p num_beams "
    "num_beam_groups diversity_penalty repetition_penalty length_penalty encoder_repetition_penalty "
    "exponential_decay_length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size "
    "num_return_sequences output_scores return_dict_in_generate forced_bos_token_id forced_eos_token_id "
    "bad_words_ids suppress_tokens begin_suppress_tokens remove_invalid_values epsilon_cutoff eta_cutoff"
)
"""What a server does where a request is silent; here requests say everything."""

SILENT = frozenset(" ".join([_HISTORY, _TOKENS, _EXECUTION, _OTHER_MODELS, _GENERATION]).split())
