declare module "marcjs" {
  /** A tag and a value, or a tag, the indicators, and pairs of a code and a value. */
  export type Field = string[];
  export const Marc: { parse(raw: Buffer, type: "iso2709"): { leader: string; fields: Field[] } };
}
