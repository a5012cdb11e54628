// What recipes and their parameters say of themselves, in Japanese, beside the English of /v1/recipes; and a form made of a recipe's JSON Schema.

export const RECIPES_JA = {
  "platform.verify_audit": ["監査ログが書き換えられていないことを確かめます。", { expected_head: "以前に控えて別の場所に保管した先頭の値。これがないと、末尾を切られたログも完全に見えます。" }],
  "platform.prune_jobs": ["終わったジョブとその記録を削除します。", { older_than_days: "この日数より前に終わったジョブを削除します。" }],
  "sop.ingest": ["大きな、または長い動画を取り込みます。", {}],
  "sop.evaluate_batch": ["多数の動画を一つの手順に照らして採点します。", {}],
  "llm.collect": ["文書を読み込み、品質を採点します。", {}],
  "llm.synthesise": ["ひな型から学習用の行を作ります。", { shares: "回答してよい行、人が判断する行、拒否する行の割合。" }],
  "llm.multimodal": ["文字と安全区分の付いた書類の画像を描きます。", {}],
  "llm.validate": ["学習の前に行を検査します。", {}],
  "llm.so8t": ["LoRA と SO8T で追加学習し、焼き込み、書き出し、登録します。", { texts: "llm.collect のシャード。行と並べて、ただの文章として学習します。", base: "fresh、champion、または元のモデルのフォルダー。", config: "プリセットの名前と、それと異なる項目（YAML の実行ファイルと同じ）。" }],
  "llm.calibrate": ["取り置いた行で、本番モデルの温度を校正します。", { held_out_share: "学習が取り置いた行の割合。学習に使わなかった行なら 1。" }],
  "llm.evaluate": ["本番モデルを分野ごとに、元のモデルや量子化版と並べて測ります。", { held_out_share: "学習が取り置いた行の割合。学習に使わなかった行なら 1。", base: "比べる元のモデルの、ワーカー上のフォルダー。", quantised: "Q8_0 の GGUF にした同じモデルとも比べます。" }],
  "llm.retrain": ["本番モデルを測り、さらに学習し、劣らなければ昇格します。", { texts: "llm.collect のシャード。行と並べて、ただの文章として学習します。", config: "プリセットの名前と、それと異なる項目（YAML の実行ファイルと同じ）。", most_rows: "両方のモデルが答える、取り置いた行の数。" }],
  "llm.gate_classifier": ["生成した行とあなたの行で、ゲートの分類器を学習します。", {}],
  "llm.gate_review": ["人の判断から、ゲートの確信度としきい値を決め直します（上限の範囲内）。", {}],
  "llm.gate_reasoner": ["言語モデルの判断をゲートでどれだけ重く見るかを決めます。", {}],
  "recommend.two_tower": ["動画、利用者、行動の記録からおすすめのモデルを学習します。", { least_events: "最低限必要な、いいね、視聴、クリックの数（利用者と動画の組で一つ）。", gate_over_popularity: "減衰人気の NDCG@10 を最低どれだけ上回るか。null ならこの基準なし。", gate_below_champion: "本番版の NDCG@10 を最大どれだけ下回ってよいか。null ならこの基準なし。", device: "auto は、ワーカーに CUDA の GPU があれば使います。", dry_run: "何から学習するかを示すだけで、学習しません。" }],
  "recommend.refresh": ["新しい動画と変わった動画・利用者を、提供中の版でベクトルにします。", { version: "省略すると提供中の版。", dry_run: "足りないものと古いものを数えるだけです。" }],
  "recommend.evaluate": ["最新の行動で版を測り、各特徴の価値を調べます。", { version: "省略すると提供中の版。", newest: "評価に使う、新しい行動の割合。", users: "調べる利用者の最大数。", repeats: "各特徴を並べ替える回数。" }],
  "recommend.federated": ["行動の記録を手元に置いたままの拠点で、本番版の利用者側をさらに学習します。", { sites: "利用者は ID のハッシュで拠点に割り当てられます。", share: "各回に参加する拠点の割合。", steps: "拠点が答えるまでに進むステップ数。", clip_norm: "一つの拠点の変化の大きさの上限。", noise: "平均をぼかす雑音の大きさ（clip_norm ÷ 参加拠点数を単位とする）。0 ならなし。", processes: "拠点ごとに別のプロセスで動かします。メモリと起動時間がその分かかります。", engine: "flwr なら Flower のエンジンで平均します（deploy/setup.sh flower で導入）。" }],
  "recommend.pictures": ["待っている動画の画像をベクトルにします。svc-sop のエンコーダーが変わったときは、すべて作り直せます。", { what: "all：すべての画像を、svc-sop の今のエンコーダーでベクトルにし直します。", patience_s: "この秒数の間一つもベクトルにならなければ、ジョブは失敗し、画像は待ち続けます。" }],
  "sem.classify": ["粒子のバッチを分類します。", { folder: "ジョブに読ませてよいフォルダーの下の場所。", clearance: "フォルダーの粒子の取扱区分。", decide: "again：判定済みのものも判定し直します。レビュー済みの粒子のラベルは変わりません。" }],
  "sem.refresh": ["判定の仕組みを更新します：レビュー済みの粒子を見本に加え、エンコーダーを合わせ、最良の分類器を選びます。", { reviewed: "レビュー済みの粒子の半分は見本に加わり、もう半分は常に検証に使われます。" }],
  "sem.encoder": ["エンコーダーを手元の画像に合わせるか、別のものを提案します。", { encoder: "hlg-shape-v1、手元の画像で自ら学ぶ onsite-v1、または、この環境に重みのある dino:名前 か onnx:名前。省略すると、使用中のものを合わせ直します。", steps: "onsite-v1 のステップ数（1 回に 96 粒子）。" }],
  "sem.reembed": ["古い粒子を、使用中のエンコーダーでベクトルにし直します。", { batch: "このバッチだけ。省略すると、見てよいものすべて。" }],
  "sem.index_pictures": ["画像を文字で検索できるように、モデルに画像を見せます。", { batch: "このバッチだけ。省略すると、見てよいものすべて。" }],
  "sem.head": ["分類器を選びます。", {}],
  "sem.fusion": ["視野のまとめ方を学習し、最も単純で優れたものを提案します。", { fusion: "best：順に取り置いた粒子での検定で、より複雑なものに負けない最も単純なもの。" }],
  "sem.semi_supervised": ["ラベルのある粒子と、まだ誰もレビューしていない粒子から学習します。", { most_unlabelled: "レビューのない、最も新しい粒子の数。" }],
  "sem.next_batch": ["レビューが最も役に立つ粒子を選び、待ち行列に入れます。", { strategy: "hybrid：見本が五つに満たないラベルがある間は典型的なもの、その後は差の小さいもの。", batch: "このバッチの粒子だけ。", most_candidates: "候補にする、最も新しい粒子の数。" }],
  "sem.audit": ["人が付けたラベルを、疑わしい順に並べます。", { most_particles: "対象にする、最も新しい見本とレビュー済みの粒子の数。", enqueue: "待ち行列に戻す、レビュー済みの粒子の数。見本は戻しません。" }],
};

/** A field for each parameter of a JSON Schema: ``fields``, and ``read()`` that gives what differs from the defaults. */
export function formOf({ el, field, language }, recipe) {
  const { properties = {}, required = [] } = recipe.params_schema;
  const ja = language() === "ja" ? RECIPES_JA[recipe.name]?.[1] : null;
  const made = Object.entries(properties).map(([name, schema]) => ({ name, schema, ...input(el, name, schema, required.includes(name)) }));
  const fields = made.map(({ name, schema, node }) => field(name, node, ja?.[name] ?? schema.description ?? null));
  const read = () => Object.fromEntries(made.map(({ name, value }) => [name, value()]).filter(([, value]) => value !== undefined));
  return { fields, read };
}

/** An input and what it says; undefined where nothing was said, so that the recipe's own default counts. */
function input(el, name, schema, required) {
  const kinds = schema.anyOf ?? [schema];
  const kind = kinds.find((each) => each.type !== "null") ?? schema;
  const initial = schema.default;
  if (kind.enum) {
    const node = el("select", { name }, required ? [] : el("option", { value: "" }, initial === undefined || initial === null ? "–" : `${initial}`), kind.enum.filter((each) => required || each !== initial).map((each) => el("option", { value: each }, each)));
    return { node, value: () => node.value || undefined };
  }
  if (kind.type === "boolean") {
    const node = el("input", { type: "checkbox", name, checked: initial === true });
    return { node, value: () => (node.checked === (initial === true) ? undefined : node.checked) };
  }
  const hint = initial === undefined || initial === null ? "" : typeof initial === "object" ? JSON.stringify(initial) : `${initial}`;
  if (kind.type === "integer" || kind.type === "number") {
    const node = el("input", { type: "number", name, required, placeholder: hint, step: kind.type === "integer" ? 1 : "any" });
    for (const [bound, limit] of [["min", kind.minimum], ["max", kind.maximum]]) if (limit !== undefined) node[bound] = limit;
    return { node, value: () => (node.value === "" ? undefined : Number(node.value)) };
  }
  if (kind.type === "string") {
    const node = el("input", { name, required, placeholder: hint });
    return { node, value: () => (node.value === "" ? undefined : node.value) };
  }
  // Lists and objects as JSON; a list of words may stand one on a line.
  const node = el("textarea", { name, required, placeholder: hint, className: "short", spellcheck: false });
  const lines = () => node.value.split("\n").map((line) => line.trim()).filter(Boolean);
  const words = kind.type === "array" && kind.items?.type === "string";
  return { node, value: () => (node.value.trim() === "" ? undefined : words && !/^\s*\[/.test(node.value) ? lines() : JSON.parse(node.value)) };
}
