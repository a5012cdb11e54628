// The user tower in a browser or in Node: a history and a profile in, a vector and a ranked list out. No server is asked.
//
//   import * as tf from "@tensorflow/tfjs";
//   const tower = await UserTower.load(tf, "https://…/towers/");
//   const history = [{ item_id: "v1" }, { item_id: "v2" }];   // newest first
//   const vector = tower.vector(history, { age_range: "25-34" });
//   tower.rank(vector, { history, k: 10, exclude: ["v1", "v2"] });
//
// Every step of encode() is features.py's, and rank() weighs its terms as blending.py does; tests/recommend/test_export_tfjs.py holds both to the same numbers.

const UNKNOWN = 1;
const FIRST_KNOWN = 2;

async function fetched(base, name) {
  const answer = await fetch(new URL(name, new URL(base, globalThis.location?.href)));
  if (!answer.ok) throw new Error(`${name}: ${answer.status}`);
  return answer.arrayBuffer();
}

export class UserTower {
  // read(base, name) gives a file as an ArrayBuffer; fetch, unless told otherwise (Node reads files with its own).
  static async load(tf, base, read = fetched) {
    const json = async (name) => JSON.parse(new TextDecoder().decode(await read(base, name)));
    const [topology, encoders, items] = await Promise.all(["model.json", "encoders.json", "items.json"].map(json));
    const paths = topology.weightsManifest.flatMap((group) => group.paths);
    const shards = await Promise.all(paths.map((path) => read(base, path)));
    const model = await tf.loadLayersModel({
      load: async () => ({
        modelTopology: topology.modelTopology,
        format: topology.format,
        weightSpecs: topology.weightsManifest.flatMap((group) => group.weights),
        weightData: await new Blob(shards).arrayBuffer(),
      }),
    });
    const neighbours = items.neighbours ? await read(base, items.neighbours.path) : null;
    return new UserTower(tf, model, encoders, items, neighbours);
  }

  constructor(tf, model, encoders, items, neighbours = null) {
    Object.assign(this, { tf, model, items });
    const size = items.ids.length * (items.neighbours?.width ?? 0);
    this.neighbourRows = neighbours && new Int32Array(neighbours, 0, size);
    this.neighbourWeights = neighbours && new Float32Array(neighbours, 4 * size, size);
    // By layer: a tensor's own name gets a suffix when a page loads the model twice.
    this.historyLength = model.inputs[model.inputNames.indexOf("history")].shape[1];
    this.topLength = encoders.config.top_len;
    this.rowOf = new Map(items.ids.map((id, row) => [id, row]));
    this.ages = new Map(encoders.age_ranges.map((word, at) => [word, at + FIRST_KNOWN]));
    this.regions = new Map(encoders.regions.map((word, at) => [word, at + FIRST_KNOWN]));
  }

  // history: [{item_id, weight = 1, watched_s?}], newest first; items that the catalogue does not know are passed over.
  encode(history, profile = {}) {
    const known = history.filter((event) => this.rowOf.has(event.item_id));
    const kept = known.slice(0, this.historyLength);
    const rows = kept.map((event) => this.rowOf.get(event.item_id));
    const weights = kept.map((event) => event.weight ?? 1);
    const total = Math.max(weights.reduce((sum, weight) => sum + weight, 0), 1e-6);
    const watched = kept.map((event) => event.watched_s).filter((seconds) => seconds !== undefined && seconds !== null);
    const meanWatched = watched.reduce((sum, seconds) => sum + seconds, 0) / Math.max(watched.length, 1);
    const padded = (values, nothing) => [...values, ...Array(this.historyLength - values.length).fill(nothing)];
    const profileOf = (index, word) => (word ? (index.get(word) ?? UNKNOWN) : 0);
    const genre = this.mostFrequent(rows.flatMap((row) => this.items.genre[row]));
    const maker = this.mostFrequent(rows.flatMap((row) => this.items.maker[row]));
    return {
      history: padded(rows.map((row) => row + 1), 0),
      log_weight: padded(weights.map((weight) => Math.log(Math.max(weight, 1e-9))), Math.log(1e-9)),
      share: padded(weights.map((weight) => weight / total), 0),
      genre,
      genre_share: shares(genre),
      maker,
      maker_share: shares(maker),
      age_range: [profileOf(this.ages, profile.age_range)],
      region: [profileOf(this.regions, profile.region)],
      number: [known.length, profile.sessions_per_week ?? 0, meanWatched].map((x) => Math.log1p(Math.max(x, 0))),
    };
  }

  // (D,) Float32Array of unit length.
  vector(history, profile = {}) {
    const encoded = this.encode(history, profile);
    return this.tf.tidy(() => {
      const inputs = this.model.inputs.map((input, n) =>
        this.tf.tensor2d([encoded[this.model.inputNames[n]]], undefined, input.dtype),
      );
      return this.model.predict(inputs).dataSync().slice();
    });
  }

  // [{item_id, score}], best first: towers, the neighbours of the history, and the prior that the export had, each weighed.
  // Without a history the towers count in full.
  rank(vector, { history = null, k = 10, exclude = [] } = {}) {
    const scores = this.tf.tidy(() => {
      return this.tf.matMul(this.tableOf(), this.tf.tensor2d(vector, [vector.length, 1])).dataSync().slice(1);
    });
    const without = new Set(exclude);
    const rows = this.items.ids.map((_, row) => row).filter((row) => !without.has(this.items.ids[row]));
    const blend = this.items.blend ?? { towers: 1, doubt: 0, stranger: 0, neighbours: 0, fade: 1 };
    const known = (history ?? []).filter((event) => this.rowOf.has(event.item_id));
    const trusted = known.length ? (blend.towers * known.length) / (known.length + blend.doubt) : blend.stranger;
    const scale = (history ? trusted : blend.towers) / this.items.temperature;
    const lift = this.lift(known, blend);
    const score = (row) => scale * scores[row] + (this.items.prior?.[row] ?? 0) + (lift?.[row] ?? 0);
    const ranked = rows.sort((a, b) => score(b) - score(a) || a - b).slice(0, k);
    return ranked.map((row) => ({ item_id: this.items.ids[row], score: score(row) }));
  }

  // {task: probability} of what the version's heads foresee, should somebody with this vector turn to an item; {} without heads.
  predict(vector, itemId) {
    const heads = this.items.heads;
    if (!heads) return {};
    const row = this.rowOf.get(itemId) + 1;
    const item = this.tf.tidy(() => this.tableOf().slice([row, 0], [1, vector.length]).dataSync().slice());
    const product = item.map((x, at) => x * vector[at] * item.length);
    const pair = [...vector, ...item, ...product];
    const wide = heads.widen_bias.map((bias, at) =>
      Math.max(0, pair.reduce((sum, x, from) => sum + x * heads.widen[from][at], bias)),
    );
    const logit = (at) => wide.reduce((sum, x, from) => sum + x * heads.narrow[from][at], heads.narrow_bias[at]);
    return Object.fromEntries(heads.tasks.map((task, at) => [task, 1 / (1 + Math.exp(-logit(at)))]));
  }

  // (N + 1, D), zeros first.
  tableOf() {
    return this.model.getLayer("items").getWeights()[0];
  }

  // (N,) what a history speaks for beside the towers; null for nothing.
  lift(known, blend) {
    if (!this.neighbourRows || !blend.neighbours || !known.length) return null;
    const width = this.items.neighbours.width;
    const kept = known.slice(0, this.items.most_history);
    const faded = kept.map((event, place) => (event.weight ?? 1) * blend.fade ** place);
    const total = Math.sqrt(Math.max(faded.reduce((sum, weight) => sum + weight, 0), 1e-6));
    const found = new Float64Array(this.items.ids.length);
    kept.forEach((event, place) => {
      const start = this.rowOf.get(event.item_id) * width;
      const spoken = (blend.neighbours * faded[place]) / total;
      for (let at = start; at < start + width; at++) found[this.neighbourRows[at]] += spoken * this.neighbourWeights[at];
    });
    return found;
  }

  // The most frequent known words first, ties to the smaller number (the commoner word), 0 where there are fewer.
  mostFrequent(words) {
    const counts = new Map();
    for (const word of words) if (word >= FIRST_KNOWN) counts.set(word, (counts.get(word) ?? 0) + 1);
    const best = [...counts].sort(([a, n], [b, m]) => m - n || a - b).map(([word]) => word);
    return [...best, ...Array(this.topLength).fill(0)].slice(0, this.topLength);
  }
}

function shares(index) {
  const count = Math.max(index.filter((at) => at > 0).length, 1);
  return index.map((at) => (at > 0 ? 1 / count : 0));
}
