<?php
/* php_worker.php PEER DIRECTORY STREAMS ENTRIES VALUE_SIZE: the workers of the comparison (worker.c) in
 * PHP, for APCu and Yac. The loop of each operation is generated with the call written out in it, so that
 * the empty loop (a call of ord(), the cheapest internal function) differs from it in nothing else.
 */
declare(strict_types=1);
[, $peer, $directory, $streams, $entries, $value_size] = $argv;
$value_size = (int)$value_size;
$number = 0;
$child = pcntl_fork();
if ($child === -1) {
    exit(3);
}
if ($child === 0) {
    $number = 1;
}
if ($peer === 'yac') {
    $store = new Yac();
    $get = '$store->get($keys[$at])';
    $set = '$store->set($keys[$at], $value)';
} else {
    $store = null;
    $get = 'apcu_fetch($keys[$at])';
    $set = 'apcu_store($keys[$at], $value)';
}
$value = '';
for ($at = 0; strlen($value) < $value_size; $at++) {
    $value .= chr(97 + $at % 23);
}

function load(string $name): array
{
    global $streams;
    return str_split((string)file_get_contents("$streams/keys.$name"), 16);
}

/* The text of a function(array $keys, int &$at, int $start, int $end, $store, string $value): answer. */
function mean_source(string $call): string
{
    return 'return static function (array $keys, int &$at, int $start, int $end, $store, string $value) {
        $calls = 0; $misses = 0; $count = count($keys); $tenth = 0;
        $all = 0; $all_ns = 0; $elapsed = 0;
        while (hrtime(true) < $start) {}
        $end += hrtime(true) - $start;
        $lost = getrusage()["ru_nivcsw"];
        do {
            $before = hrtime(true);
            for ($i = 0; $i < 64; $i++) {
                ' . $call . '
                if (++$at === $count) $at = 0;
            }
            $now = hrtime(true);
            $all += 64;
            $all_ns += $now - $before;
            $lost_now = getrusage()["ru_nivcsw"];
            if ($lost_now === $lost) {
                $calls += 64;
                $elapsed += $now - $before;
            }
            $lost = $lost_now;
        } while ($now < $end);
        if ($calls < $all / 10) { $calls = $all; $elapsed = $all_ns; }
        if ($misses > 0) $misses = intdiv($misses * $calls, $all);
        return sprintf("mean %d %d %d", $calls, $elapsed, $misses);
    };';
}

function times_source(string $call): string
{
    return 'return static function (array $keys, int &$at, int $start, int $end, $store, string $value) {
        $misses = 0; $count = count($keys); $tenth = 0; $gets = []; $sets = [];
        while (hrtime(true) < $start) {}
        $before = hrtime(true);
        $end += $before - $start;
        while ($before < $end) {
            $is_set = false;
            ' . $call . '
            if (++$at === $count) $at = 0;
            $after = hrtime(true);
            if ($is_set) $sets[] = $after - $before; else $gets[] = $after - $before;
            $before = hrtime(true);
        }
        sort($gets); sort($sets);
        $at_share = static fn(array $s, float $share) => $s === [] ? 0 : $s[(int)($share * (count($s) - 1))];
        return sprintf("times %d %d %d %d %d %d %d %d %d", count($gets), count($sets), $misses,
            $at_share($gets, 0.5), $at_share($gets, 0.99), $at_share($gets, 0.999),
            $at_share($sets, 0.5), $at_share($sets, 0.99), $at_share($sets, 0.999));
    };';
}

$calls = [
    'get' => "if ($get === false) \$misses++;",
    'set' => "\$is_set = true; if ($set === false) \$misses++;",
    'mix' => "if (++\$tenth === 10) { \$tenth = 0; \$is_set = true; if ($set === false) \$misses++; }"
        . " else if ($get === false) \$misses++;",
    'empty' => 'if (ord($keys[$at]) === false) $misses++;',
];
$mean = $times = [];
foreach ($calls as $operation => $call) {
    $mean[$operation] = eval(mean_source($call));
    $times[$operation] = eval(times_source($call));
}

function fill(): string
{
    global $peer, $store, $value, $value_size;
    $keys = load('fill');
    $misses = 0;
    foreach ($keys as $key) {
        $mine = $key . substr($value, 16);
        if (!($peer === 'yac' ? $store->set($key, $mine) : apcu_store($key, $mine))) {
            return 'error a set failed while filling';
        }
    }
    $step = intdiv(count($keys), 1000) + 1;
    for ($at = 0; $at < count($keys); $at += $step) {
        $found = $peer === 'yac' ? $store->get($keys[$at]) : apcu_fetch($keys[$at]);
        if ($found === false) {
            $misses++;
        } elseif ($found !== $keys[$at] . substr($value, 16)) {
            return 'error another value than the one that was stored';
        }
    }
    return "ok $misses";
}

function memory(): int
{
    global $peer;
    if ($peer === 'yac') {
        return 0; /* it only says how large its segments are */
    }
    $info = apcu_sma_info(true);
    return (int)($info['num_seg'] * $info['seg_size'] - $info['avail_mem']);
}

$in = fopen("$directory/w$number.in", 'r');
$out = fopen("$directory/w$number.out", 'w');
$keys = $at = [];
while (($line = fgets($in)) !== false) {
    $words = explode(' ', trim($line));
    switch ($words[0]) {
        case 'quit':
            break 2;
        case 'fill':
            $answer = fill();
            break;
        case 'attach':
            $answer = 'ok 0';
            break;
        case 'memory':
            $answer = 'memory ' . memory();
            break;
        default:
            [$verb, $operation, $name, $start, $duration] = $words;
            if (!isset($keys[$name])) {
                $keys[$name] = load($name);
                $at[$name] = intdiv(count($keys[$name]), 2) * $number;
            }
            $pass = ($verb === 'mean' ? $mean : $times)[$operation];
            $start = max((int)$start, hrtime(true));
            $answer = $pass($keys[$name], $at[$name], $start, $start + (int)$duration, $store, $value);
    }
    fwrite($out, $answer . "\n");
    fflush($out);
}
