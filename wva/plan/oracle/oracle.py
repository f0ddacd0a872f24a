"""Compares `llmd wva plan` with HiGHS on generated fleets.

Usage: oracle.py --llmd PATH (--store FILE | --verify N)

--store FILE  fifty fleets of at most 10 models with 3 variants, with their optima, for the tests
--verify N    N fleets of 3 to 30 models: no plan below its bound, every plan within the pools, 0.5 % on average

Needs highspy (PyPI). Seeds are fixed: the same fleets each time.
"""

import argparse
import json
import pathlib
import random
import subprocess
import sys
import tempfile

import highspy

SECONDS = 20


def fleet(seed, models, variants):
    """Scarce for a third of the seeds, ample for another; prices of changes for half of them."""
    draw = random.Random(seed)
    pools, share, changes = draw.randint(1, 3), draw.choice([0.5, 0.85, 1.2]), draw.random() < 0.5
    needed, out = [0] * pools, []
    for number in range(models):
        demand, ways = round(draw.uniform(20, 200), 1), []
        for variant in range(draw.randint(1, variants)):
            gpus, pool = draw.choice([1, 2, 4, 8]), draw.randrange(pools)
            way = {"name": f"v{variant}", "pool": f"p{pool}", "gpus": gpus, "price": round(gpus * draw.uniform(2, 6), 2),
                   "capacity": round(gpus * draw.uniform(6, 14), 2)}
            if changes:
                way |= {"current": draw.randint(0, 2), "startPrice": round(draw.uniform(0, 10), 2),
                        "stopPrice": round(draw.uniform(0, 2), 2)}
            if draw.random() < 0.2:
                way["max"] = draw.randint(1, 4)
            ways.append(way)
        out.append({"name": f"m{number}", "demand": demand, "lossPerUnit": draw.choice([5, 20]), "variants": ways})
        best = min(ways, key=lambda way: way["price"] / way["capacity"])
        needed[int(best["pool"][1:])] += -(-demand // best["capacity"]) * best["gpus"]
    return {"pools": [{"name": f"p{number}", "gpus": int(gpus * share)} for number, gpus in enumerate(needed)], "models": out}


def planned(llmd, work, fleet):
    file, program = work / "fleet.json", work / "fleet.lp"
    file.write_text(json.dumps(fleet))
    run = subprocess.run([llmd, "wva", "plan", "-f", file, "-o", "json", "--write-lp", program], capture_output=True, text=True)
    if run.returncode:
        sys.exit(f"{run.stderr}\n{file.read_text()}")
    return json.loads(run.stdout), program


def optimum(program):
    """Cost of the best plan, and whether that is proved."""
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("time_limit", float(SECONDS))
    solver.setOptionValue("mip_rel_gap", 0.0)
    solver.setOptionValue("threads", 1)
    solver.readModel(str(program))
    solver.run()
    return solver.getInfo().objective_function_value, solver.getModelStatus() == highspy.HighsModelStatus.kOptimal


def store(llmd, work, file):
    rows = []
    for seed in range(50):
        one = fleet(seed, random.Random(seed).randint(1, 10), 3)
        best, is_proved = optimum(planned(llmd, work, one)[1])
        assert is_proved, f"fleet {seed} was not solved in {SECONDS} s"
        rows.append({"fleet": one, "optimum": round(best, 6)})
    pathlib.Path(file).write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


def verify(llmd, work, count):
    above, wrong, unproved = [], 0, 0
    for seed in range(1000, 1000 + count):
        one = fleet(seed, random.Random(seed).randint(3, 30), 5)
        plan, program = planned(llmd, work, one)
        best, is_proved = optimum(program)
        unproved += not is_proved
        above.append((plan["cost"] - best) / max(best, 1e-9))
        over = [pool["name"] for pool in plan["pools"] if pool["used"] > pool["gpus"]]
        is_wrong = plan["bound"] > best * (1 + 1e-6) + 1e-6 or over or (is_proved and plan["cost"] < best * (1 - 1e-6) - 1e-6)
        if is_wrong:
            print(f"fleet {seed}: plan {plan['cost']}, bound {plan['bound']}, optimum {best}, overfull {over}")
        wrong += bool(is_wrong)
    mean, worst = sum(above) / len(above), max(above)
    exact = sum(gap < 1e-6 for gap in above)
    print(f"{count} fleets: {exact} optimal, {mean:.3%} above the optimum on average, {worst:.2%} at worst; {unproved} not proved "
          f"by HiGHS in {SECONDS} s; {wrong} wrong")
    sys.exit(bool(wrong) or mean > 0.005)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--llmd", required=True)
    parser.add_argument("--store")
    parser.add_argument("--verify", type=int)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        if args.store:
            store(args.llmd, pathlib.Path(work), args.store)
        else:
            verify(args.llmd, pathlib.Path(work), args.verify)


if __name__ == "__main__":
    main()
