#!/bin/sh
# The main job in under a minute: the planted model, whose truth is known, and then a real
# model where one is at hand (first argument), on sentiment and on facts about cities.
set -e
noema=${NOEMA:-build/noema} out=demo-out model=${1:-}
rm -rf "$out"
mkdir -p "$out"
echo "== a model whose inside is known: A readable after block 2 and used, B after block 4 and not used"
"$noema" world planted-a -n 40 -s 1 -o "$out/concept-A.tsv"
"$noema" world planted-b -n 40 -s 2 -o "$out/concept-B.tsv"
"$noema" depth models/planted.gguf --data "$out/concept-A.tsv" --data "$out/concept-B.tsv" \
  --site resid_post --repeats 5 -o "$out/planted"
if [ -n "$model" ]; then
  echo
  echo "== a real model: $model"
  data=../shared/data/concept-depth
  set --
  [ -f $data/stsa.binary.test ] && set -- "$@" --data "sentiment=$data/stsa.binary.test"
  [ -f $data/cities.csv ] && set -- "$@" --data "cities=$data/cities.csv"
  if [ $# -gt 0 ]; then
    "$noema" depth "$model" "$@" -n 600 --repeats 5 -o "$out/real"
  else
    echo "no data set at hand; give it your own: $noema depth $model --data FILE"
  fi
else
  echo
  echo "for a model of yours:  make demo MODEL=your.gguf"
fi
if [ -n "${TRAIN:-}" ]; then
  echo
  echo "== a model trained from nothing, in minutes, on worlds whose truth is known"
  "$noema" study concept-depth --seeds 1 -o "$out/miniature" || [ $? -ge 5 ]
else
  echo "to see a model learn, in minutes:  make demo TRAIN=1"
fi
echo
echo "open $out/planted/report.html$([ -f "$out/real/report.html" ] && echo " and $out/real/report.html")"
