// The titles of problems in Japanese, by code; in English they come with the problem. tests/browser fails on one that is missing.
export const TITLES_JA = {
  "already-exists": "すでに存在します。",
  "audit-broken": "監査ログが署名済みの内容につながりません。",
  "backend-failed": "言語モデルから使える回答が得られませんでした。",
  "backend-unreachable": "言語モデルに接続できません。",
  "bad-bundle": "このバンドルはモデルの版にできません。",
  "bad-gateway": "内部のサービスから使える応答が得られませんでした。",
  "bad-request": "リクエストを読み取れません。",
  "bundle-unreadable": "バンドルを読み込めません。",
  "clearance-too-low": "取扱区分がこの情報に届いていません。",
  "conflict": "現在の状態と矛盾するため実行できません。",
  "connect-failed": "内部のサービスに接続できませんでした。",
  "connection-broken": "応答が始まる前に内部のサービスとの接続が切れました。",
  "decoding-stopped": "動画の解読が時間またはメモリの上限を超えました。",
  "disk-full": "保存する空きがありません。",
  "draining": "このプロセスは停止処理中です。",
  "egress-refused": "この宛先は接続を許可された一覧にありません。",
  "encoder-mismatch": "異なるエンコーダーのベクトルは比較できません。",
  "encoder-unavailable": "このマシンではエンコーダーを開けません。",
  "forbidden": "許可されていません。",
  "gate-not-met": "この版は昇格の条件を満たしていません。",
  "gateway-timeout": "内部のサービスの応答に時間がかかりすぎました。",
  "gone": "以前はありましたが、もうありません。",
  "headers-too-large": "リクエストのヘッダーが大きすぎます。",
  "idempotency-in-flight": "同じ Idempotency-Key の最初のリクエストがまだ処理中です。",
  "idempotency-key-missing": "このリクエストには Idempotency-Key ヘッダーが必要です。",
  "idempotency-key-reused": "この Idempotency-Key は別の内容で使われています。",
  "internal": "こちら側で障害が発生しました。",
  "invalid": "入力内容に誤りがあります。",
  "label-not-active": "このラベルにはもう粒子を付けられません。",
  "length-required": "本文の長さを示す必要があります。",
  "method-not-allowed": "このアドレスではその操作はできません。",
  "no-readable-view": "読み取れる画像が足りません。",
  "picture-unreadable": "画像を読み取れません。",
  "not-a-video": "受け付けられる形式の動画ではありません。",
  "not-found": "見つかりません。",
  "nothing-to-judge-by": "この版を判断できる表示記録がありません。",
  "overloaded": "待っている作業が多すぎます。",
  "payload-too-large": "本文が許可された大きさを超えています。",
  "pdf-not-installed": "この環境では PDF を作成できません。",
  "prompt-too-long": "会話が言語モデルの読める長さを超えています。",
  "queue-full": "待っている作業がすでに多すぎます。",
  "range-not-satisfiable": "指定された範囲は内容の外にあります。",
  "request-timeout": "リクエストの到着に時間がかかりすぎました。",
  "scope-missing": "あなたの役割にはこの権限がありません。",
  "service-not-deployed": "この環境では、このサービスは動いていません。",
  "service-unavailable": "内部のサービスが利用できません。",
  "too-few-masters": "判定に必要な見本が足りません。",
  "too-little-overlap": "この版が表示するはずのものが、まだ十分に表示されていません。",
  "too-many-requests": "リクエスト数の上限に達しました。",
  "unauthorized": "利用者を確認できません。",
  "unavailable": "まだ応答できる状態ではありません。",
  "unsupported-media": "この種類の内容は受け付けられません。",
  "upstream-failed": "内部のサービスに到達できませんでした。",
  "version-conflict": "その間にほかの人が変更しました。",
  "video-too-large": "動画の容量、画素数、またはフレームレートが上限を超えています。",
  "video-too-long": "動画が許可された長さを超えています。",
  "video-truncated": "動画の半分以上を解読できません。",
  "video-unreadable": "動画を解読できません。",
  "web-socket-refused": "WebSocket は受け付けていません。",
};

// What a kind of problem says by its own members, in the order of preference: the first counts whose members are all there.
export const SAID_JA = {
  "clearance-too-low": ["この操作には取扱区分「{clearance}」が必要です。"],
  "disk-full": ["ディスクがいっぱいです。管理者が空きを作る必要があります。何も保存されていません。"],
  "draining": ["少し待ってから、もう一度お試しください。"],
  "idempotency-in-flight": ["終わるまで待ってから、もう一度お試しください。"],
  "overloaded": ["混み合っています。{retry_after_s} 秒後にもう一度お試しください。"],
  "payload-too-large": ["送れる大きさは {max_body_bytes} までです。", "送れる大きさは {max_bytes} までです。"],
  "queue-full": ["作業が混み合っています。約 {retry_after_s} 秒後にもう一度お試しください。"],
  "scope-missing": ["この操作には権限「{scope}」が必要です。"],
  "service-unavailable": ["サービス「{service}」で障害が続いているため、要求を送っていません。{retry_after_s} 秒後にもう一度お試しください。"],
  "too-many-requests": ["1 分あたり {per_minute} 件、または同時に {burst} 件の上限を超えました。{retry_after_s} 秒後にもう一度お試しください。", "{retry_after_s} 秒後にもう一度お試しください。"],
  "unavailable": ["{retry_after_s} 秒後にもう一度お試しください。"],
  "unsupported-media": ["「{sent}」は受け付けられません。{taken} のいずれかで送ってください。"],
  "version-conflict": ["現在の版は {current_version} です。読み直してから、もう一度お試しください。"],
};

// What is wrong with a field, by the code that pydantic gives it; the limits stand beside the code.
export const FAULTS_JA = {
  "bool_parsing": "true か false にしてください",
  "bool_type": "true か false にしてください",
  "date_from_datetime_parsing": "日付（例：2026-11-27）にしてください",
  "date_parsing": "日付（例：2026-11-27）にしてください",
  "datetime_from_date_parsing": "日時（例：2026-11-27T09:00:00+09:00）にしてください",
  "datetime_parsing": "日時（例：2026-11-27T09:00:00+09:00）にしてください",
  "datetime_type": "日時（例：2026-11-27T09:00:00+09:00）にしてください",
  "dict_type": "名前と値の組（オブジェクト）にしてください",
  "enum": "{expected} のいずれかにしてください",
  "extra_forbidden": "この項目は受け付けていません",
  "finite_number": "有限の数にしてください",
  "float_parsing": "数で入力してください",
  "float_type": "数で入力してください",
  "greater_than": "{gt} より大きくしてください",
  "greater_than_equal": "{ge} 以上にしてください",
  "int_from_float": "整数で入力してください",
  "int_parsing": "整数で入力してください",
  "int_parsing_size": "桁数が多すぎます",
  "int_type": "整数で入力してください",
  "json_invalid": "JSON として読み取れません",
  "less_than": "{lt} より小さくしてください",
  "less_than_equal": "{le} 以下にしてください",
  "list_type": "一覧（配列）にしてください",
  "literal_error": "{expected} のいずれかにしてください",
  "missing": "必須です",
  "model_attributes_type": "名前と値の組（オブジェクト）にしてください",
  "model_type": "名前と値の組（オブジェクト）にしてください",
  "multiple_of": "{multiple_of} の倍数にしてください",
  "string_too_long": "{max_length} 文字以内で入力してください",
  "string_too_short": "{min_length} 文字以上で入力してください",
  "string_type": "文字列で入力してください",
  "timezone_aware": "時差を付けてください（例：+09:00）",
  "too_long": "{max_length} 件以内にしてください",
  "too_short": "{min_length} 件以上にしてください",
};

const MIB = 1024 * 1024;

/** A member as a person reads it. */
function readable(name, value) {
  if (Array.isArray(value)) return value.join("、");
  if (name === "expected") return value.replace(/ or |, /g, "、");
  if (name.endsWith("_bytes")) return value < MIB ? `${value.toLocaleString("ja")} バイト` : `${Number((value / MIB).toFixed(1)).toLocaleString("ja")} MiB`;
  if (name.endsWith("_s")) return Math.ceil(value).toLocaleString("ja");
  return typeof value === "number" ? value.toLocaleString("ja") : String(value);
}

/** A text with its places filled from `members`; null where one is missing. */
function filled(template, members) {
  const names = [...template.matchAll(/\{(\w+)\}/g)].map(([, name]) => name);
  if (names.some((name) => members[name] == null)) return null;
  return template.replace(/\{(\w+)\}/g, (_, name) => readable(name, members[name]));
}

/** What a problem says beside its title, in Japanese, by its type and members; null where they do not say it. */
export function said(problem) {
  for (const template of SAID_JA[String(problem.type).split(":").at(-1)] ?? []) {
    const text = filled(template, problem);
    if (text !== null) return text;
  }
  return null;
}

/** What is wrong with a field, in Japanese, by its code and limits; null for a code that says too little. */
export const faultSaid = (fault) => (FAULTS_JA[fault.code] ? filled(FAULTS_JA[fault.code], fault) : null);
