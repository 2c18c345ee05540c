#!/usr/bin/env bash
# Installs what is missing, builds, and shows Augur's main job on the demo model.
#   ./run.sh                    score real text, also with fewer experts in memory than there are,
#                               continue a sentence, answer two questions
#   ./run.sh serve ARGS...      serve the demo model, or another, and its page; Ctrl-C ends it
#   ./run.sh score ARGS...      run augur-score with these arguments
#   ./run.sh build              only install and build
set -euo pipefail
cd "$(dirname "$0")"

./tools/install_deps.sh
build=build/release
[ -f "$build/build.ninja" ] ||
  cmake --preset release -DAUGUR_BUILD_TESTS=OFF -DAUGUR_BUILD_BENCH=OFF >/dev/null
cmake --build "$build" --target augur-score augur-server augur-bench augur-make-checkpoint
score=$build/tools/augur-score

case "${1:-demo}" in
  build) exit 0 ;;
  score) shift; exec "$score" "$@" ;;
  serve) shift; exec "$build/tools/augur-server" "$@" ;;
  demo) ;;
  *) sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 1 ;;
esac

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

echo
echo "== Scoring: how likely does the demo model find 88 documents it has not seen?"
"$score" --input tests/data/eval.jsonl --output "$out/scores.jsonl" \
  --max-tokens-per-document 1024
echo "The first three of $(wc -l <"$out/scores.jsonl") result lines:"
head -n 3 "$out/scores.jsonl"

echo
echo "== The same with a quarter of the experts in memory and the others read as they are wanted"
"$score" --set logging.level=warning --set cache.experts.device_bytes=4608KiB \
  --input tests/data/eval.jsonl --output "$out/pooled.jsonl" --max-tokens-per-document 1024
cmp "$out/scores.jsonl" "$out/pooled.jsonl"
echo "The output is the same, byte for byte (docs/expert-memory.md)."

echo
echo "== Generating: one text to continue, two questions to answer"
cat >"$out/prompts.jsonl" <<'PROMPTS'
{"id": "continue", "text": "The capital of France is"}
{"id": "courage", "messages": [{"role": "user", "content": "What does \"courage\" mean?"}]}
{"id": "japan", "messages": [{"role": "user", "content": "Name the capital of Japan."}]}
PROMPTS
"$score" --set logging.level=warning --mode generate --temperature 0 --max-tokens 32 \
  --stop '<|user|>' --input "$out/prompts.jsonl" --output "$out/answers.jsonl"
cat "$out/answers.jsonl"

cat <<NEXT

== Your own model and text
A model is a Hugging Face folder (config.json, *.safetensors, tokenizer.json); text is one JSON
object a line, {"id": ..., "text": ...}:
  $score --model /path/to/model --input texts.jsonl --output scores.jsonl
  $score --model /path/to/model --mode generate --input prompts.jsonl --output answers.jsonl
docs/augur-score.md lists every option; README.md says which models run.
To chat with it in a browser, or to serve it to any OpenAI client:
  ./run.sh serve --model /path/to/model
NEXT
