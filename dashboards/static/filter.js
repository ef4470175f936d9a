// What is typed into the search box of the fleet, as a test of a device.
//   pump 7            name or metrics contain each word
//   is:offline        is:online, is:late, is:offline, is:alarm (an alarm is active)
//   type:climate      the type is, or begins with, this
//   gateway:gw-1      so does its gateway
//   label:floor=3     it has this label; label:floor has one of this key; a leading minus turns any of these around
const KEYS = {
  is: (row, value) => (value === "alarm" ? row.severity > 0 : row.status.startsWith(value)),
  type: (row, value) => row.type.toLowerCase().startsWith(value),
  gateway: (row, value) => row.gateway.toLowerCase().startsWith(value),
  label: (row, value) => row.labels.some((label) => {
    const one = label.toLowerCase();
    return one === value || one.startsWith(`${value}=`);
  }),
};

export function parse(text) {
  const tests = text.trim().toLowerCase().split(/\s+/).filter(Boolean).map((word) => {
    const not = word.length > 1 && word.startsWith("-");
    const [, key, value] = (not ? word.slice(1) : word).match(/^(is|type|gateway|label):(.*)$/) ?? [];
    const test = key ? (row) => value === "" || KEYS[key](row, value) : (row) => row.words.includes(not ? word.slice(1) : word);
    return not ? (row) => !test(row) : test;
  });
  return (row) => tests.every((test) => test(row));
}

// The text with `is:value` put in or taken out; another `is:` goes.
export function toggle(text, value) {
  const words = text.trim().split(/\s+/).filter(Boolean);
  const others = words.filter((word) => !word.toLowerCase().startsWith("is:"));
  return (words.includes(`is:${value}`) ? others : [...others, `is:${value}`]).join(" ");
}

export const chosen = (text) => text.toLowerCase().match(/(?:^|\s)is:(\w+)/)?.[1] ?? "";
