// Pictures of particles: small ones to look at, and files of them on their way in.

/** A small picture of a view; the key goes along, so it cannot be a plain address. */
export function thumb({ el, t, call }, particle, view, name) {
  const image = el("img", { alt: name, loading: "lazy" });
  call(`/v1/sem/particles/${particle}/views/${view}/picture`)
    .then((answer) => answer.blob())
    .then((blob) => { image.onload = () => URL.revokeObjectURL(image.src); image.src = URL.createObjectURL(blob); })
    .catch(() => image.replaceWith(el("span", { className: "help" }, t("noPicture"))));
  return image;
}

/** Files of pictures, and how they belong together: ``groups()`` gives ``{name, files}``, one a particle. */
export function pictureFiles({ el, t }) {
  const files = el("input", { type: "file", name: "views", multiple: true, required: true, accept: ".tif,.tiff,.png,.jpg,.jpeg,.txt,.hdr" });
  const how = el("select", { name: "how" }, ["name", "each", "one"].map((each) => el("option", { value: each }, t(`files_${each}`))));
  const stem = (file) => file.name.replace(/\.[^.]*$/, "");
  const names = { one: (_, all) => stem(all[0]), each: stem, name: (file) => stem(file).replace(/[-_ ]?(?:view|v)?[-_ ]?\d+$/i, "") || stem(file) };
  function groups() {
    const all = [...files.files].sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
    const found = new Map();
    for (const file of all) {
      const name = names[how.value](file, all);
      found.set(name, [...(found.get(name) ?? []), file]);
    }
    return [...found].map(([name, members]) => ({ name, files: members }));
  }
  return { files, how, groups };
}

/** The form of one particle. */
export function particleForm(group, fields) {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) if (value) form.append(name, value);
  for (const file of group.files) form.append("views", file, file.name);
  return form;
}
