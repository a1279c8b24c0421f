"""Names of settings in other trainers, each with this program's option for it.

From pytorch/examples (word_language_model), salesforce/awd-lstm-lm, karpathy/char-rnn, karpathy/nanoGPT, Hugging Face
transformers and PyTorch Lightning.
"""

# What a name stands for here: of several, the first that a command has. CORPUS and RUN are arguments.
_USUAL: dict[str, str] = {
    # the training
    "--lr": "--learning-rate --learning-rate-init --step-size --eta",
    "--optimizer": "--optim --optimiser --opt",
    "--schedule": "--scheduler --lr-schedule --lr-scheduler --lr-scheduler-type --lr-policy",
    "--decay-factor": "--lr-decay --learning-rate-decay --decay-rate --gamma --anneal-factor",
    "--decay-after": "--learning-rate-decay-after --lr-decay-after --when --decay-start",
    "--weight-decay": "--wd --wdecay --l2 --l2-reg",
    "--average": "--ema --ema-decay --averaging --asgd",
    "--clip norm:THRESHOLD": "--grad-clip --gradient-clip --gradient-clipping --gradient-clip-val --clip-grad --clip-grad-norm "
    "--max-grad-norm --max-norm --clip-norm --clipping",
    "--clip value:THRESHOLD": "--clip-value --clip-grad-value",
    "--epochs": "--epoch --num-epochs --n-epochs --nepochs --max-epochs --max-epoch --num-train-epochs",
    "--max-steps": "--steps --num-steps --n-steps --train-steps --iters --iterations --num-iters --max-iters --max-updates",
    "--patience": "--early-stopping --early-stop --early-stopping-patience",
    "--seed": "--random-seed --rng-seed --manual-seed",
    "--checkpoint-every": "--save-every --save-interval --save-steps --checkpoint-interval --eval-val-every",
    "--init-from": "--load --pretrained --from-pretrained --init --finetune",
    "lm resume RUN": "--resume --resume-from --resume-from-checkpoint --continue",
    # batches
    "--rows": "--batch --batch-size --batchsize --bs --bsz --train-batch-size --eval-batch-size --per-device-train-batch-size "
    "--per-device-eval-batch-size",
    "--bptt": "--seq-len --seq-length --seqlen --sequence-length --sequence-len --block-size --context-length --context-size "
    "--max-seq-len --max-seq-length --bptt-len --unroll --unroll-steps --window",
    "--valid-rows": "--valid-batch-size --val-batch-size",
    # the model
    "--cell": "--model --model-type --cell-type --rnn --rnn-type --rnn-cell --arch --architecture",
    "--hidden-size": "--hidden --hidden-dim --hidden-units --hid-size --nhid --n-hid --n-hidden --num-hidden --units "
    "--rnn-size",
    "--embedding-size": "--embedding --embedding-dim --embed --embed-size --embed-dim --emb --emb-size --emb-dim --emsize "
    "--n-embd --word-dim",
    "--layers": "--layer --nlayers --n-layers --n-layer --num-layers --num-hidden-layers --depth",
    "--tie": "--tied --tie-weights --tie-word-embeddings --tie-embeddings --weight-tying",
    "--dropout": "--drop --dropout-rate --dropout-p --dropout-prob --drop-rate --keep-prob --dropouth --dropouti",
    "--embedding-dropout": "--dropoute --embed-dropout --emb-dropout",
    "--weight-drop": "--wdrop --weight-dropout --dropconnect",
    "--init-width": "--init-range --init-scale --initializer-range",
    # text and tokens
    "--tokens": "--token --tokenizer --token-type --tokenization --level --unit",
    "--vocab-size, --vocabulary": "--vocab --vocabulary-size --max-vocab --max-vocab-size --num-words --ntokens",
    "--min-count": "--min-freq --min-frequency --min-occurrences",
    "--lower": "--lowercase --lower-case --do-lower-case --uncased",
    "--train": "--train-file --train-data --train-text --trainfile",
    "--valid": "--valid-file --validation-file --validation --val --val-file --dev --dev-file --eval-file",
    "--test": "--test-file --test-data",
    "CORPUS, TEXT|FILE, --corpus, --prompt-file": "--data --dataset --data-dir --data-path --data-file "
    "--text-file --train-text-file --file --files",
    "CORPUS, TEXT|FILE, --corpus, --prompt": "--text --input",
    "CORPUS": "--corpus --source",
    "--run, --html": "--out --out-dir --outdir --output --output-dir --save --save-dir --savefile "
    "--logdir --log-dir --run-dir --name",
    "--out": "--output --outfile --output-file --out-file --savefile --save",
    # the machine
    "--processes": "--nproc-per-node --num-processes --nproc --n-procs --world-size",
    "--device cuda": "--cuda --gpu --gpus --use-cuda --use-gpu",
    "--device cpu": "--cpu --no-cuda --use-cpu",
    "--device": "--accelerator --gpuid --gpu-id",
    "--precision bf16": "--bf16 --fp16 --half --amp --mixed-precision",
    "--precision float32": "--fp32 --float32",
    "--precision": "--dtype",
    "--threads": "--num-threads --nthreads --n-threads --workers --num-workers --jobs",
    "--quiet": "--silent --no-progress --no-verbose --disable-tqdm",
    # asking a model
    "RUN, --init-from": "--checkpoint --ckpt --checkpoint-path --model-path --model-name-or-path --run",
    "--length": "--max-length --max-len --max-new-tokens --num-tokens --n-tokens --num-chars --words --nwords --n-words",
    "--temperature": "--temp --tau --sampling-temperature",
    "--top-k, --top": "--topk --k",
    "--top-p": "--topp --nucleus --nucleus-p",
    "--temperature 0": "--greedy --argmax",
    "--samples": "--num-samples --n-samples --nsamples --num-return-sequences --number --count",
    "--prompt": "--start --prime --primetext --prime-text --prime-str --prefix --context --seed-text --start-text --begin",
    "--no-repeat-ngram": "--no-repeat-ngram-size",
    "--stop": "--stop-token --stop-sequence --stop-sequences --stop-text --stop-string --until --eos",
    "--int8": "--quantize --quantise --quantized --quantization --8bit --load-in-8bit",
    "--title": "--heading --caption",
    "--ngram": "--order --ngram-order --n-gram --ngrams",
    "--interpolate": "--mix --mixture --interpolation",
    "--dynamic": "--dynamic-evaluation --dynamic-eval --dyneval",
    "--dynamic-lr": "--dynamic-rate",
    "--masks": "--mc-dropout --mc-samples --monte-carlo-dropout --dropout-samples",
    "--top": "--num --limit --most-common",
}
# In these commands another command's own option means something else.
_USUAL_OF: dict[str, dict[str, str]] = {
    "generate": {"--tokens": "--length", "--text": "--prompt", "--input": "--prompt", "--data": "--prompt-file"},
    "next": {"--top-k": "--top", "--text": "--prompt", "--input": "--prompt"},
    "eval": {"--test": "--split test", "--valid": "--split valid", "--train": "--split train", "--lr": "--dynamic-lr"},
    "params": {"--vocab": "--vocabulary", "--vocabulary-size": "--vocabulary", "--ntokens": "--vocabulary"},
    "page": {"--html": "--out", "--text": "--prompt", "--input": "--prompt"},
    "score": {"--prompt": "TEXT|FILE", "--prompt-file": "TEXT|FILE"},
}


def usual() -> dict[str, list[str]]:
    """{name elsewhere: candidates here}, the likeliest first; an option may come with its value."""
    table: dict[str, list[str]] = {}
    for here, names in _USUAL.items():
        for name in names.split():
            table.setdefault(name, []).extend(here.split(", "))
    return table


def meant(name: str, command: str, has: set[str]) -> str:
    """The option or argument that a user of another trainer means by ``name``; "" if unknown.

    Args:
        name: with any number of dashes in front, and with dashes or underscores inside.
        command: its last name, such as train.
        has: the command's options and names of arguments.
    """
    name = "--" + name.lstrip("-").replace("_", "-").lower()
    own = _USUAL_OF.get(command, {})
    known = [own.get(name, name), name, *usual().get(name, [])]
    return next((here for here in known if here.split()[0] in has or here.startswith("lm ")), "")
