declare module "cli-progress" {
  export class SingleBar {
    constructor(options: { stream: NodeJS.WritableStream });
    start(total: number, startValue: number): void;
    update(value: number): void;
    stop(): void;
  }
}
