/* script.c: see script.h. The order of two entries is that of five pieces of their records' first
 * 42 characters, compared as numbers: a 64-bit clock does not fit a Lua number (a double), and
 * strings are compared by the server's locale. Each piece is at most 36 bits.
 *
 * The event is emitted before anything is written: where the stream is gone or in a newer epoch,
 * nothing has been changed. Epochs only rise, whatever the server's clock does: a host that has not
 * noticed that its own is over could go on with it otherwise, and would begin it anew. (Two hosts
 * that knew the same last one must not begin the same next one: hence the microseconds.) Where one
 * does so all the same (a push that gets number 0, the place of an epoch's first entry), the stream
 * is given up for a newer one.
 *
 * In a cluster the key and the stream stand on different nodes: store writes, emit tells, and the
 * machine repeats both where either may have failed.
 */
#include "daemon/redis/script.h"

/* A version too far ahead is refused: it would rule over what is written after it. A record that is
 * (the server's clock has been set back) counts for nothing, for the same reason. */
#define NOT_AHEAD(MOST)                                                                            \
    "local t = call('TIME')\n"                                                                     \
    "local now = t[1] * 1000 + math.floor(t[2] / 1000)\n"                                          \
    "local function ahead(text)\n"                                                                 \
    "  return (tonumber(string.sub(text, 2, 13), 16) or 0) > now + " MOST "\n"                     \
    "end\n"                                                                                        \
    "if ahead(head) then return -now end\n"                                                        \
    "local r = call('GET', KEYS[2])\n"                                                             \
    "if r and string.sub(r, 1, 1) == '1' and ahead(r) then r = false end\n"

/* Runs only where a record is there: r. Answers for the older entry; leaves d (0: equal). */
#define COMPARE(LIMIT)                                                                             \
    "  local sub, d = string.sub, 0\n"                                                             \
    "  local a, b = sub(r, 1, 42), sub(head, 1, 42)\n"                                             \
    "  if a ~= b then\n"                                                                           \
    "    if sub(a, 1, 1) ~= '1' then\n"                                                            \
    "      return redis.error_reply('FORMAT the record is of another version')\n"                  \
    "    end\n"                                                                                    \
    "    d = tonumber(sub(a, 2, 9), 16) - tonumber(sub(b, 2, 9), 16)\n"                            \
    "    if d == 0 then d = tonumber(sub(a, 10, 17), 16) - tonumber(sub(b, 10, 17), 16) end\n"     \
    "    if d == 0 then d = tonumber(sub(a, 18, 25), 16) - tonumber(sub(b, 18, 25), 16) end\n"     \
    "    if d == 0 then d = tonumber(sub(a, 26, 33), 16) - tonumber(sub(b, 26, 33), 16) end\n"     \
    "    if d == 0 then d = tonumber(sub(a, 34, 42), 16) - tonumber(sub(b, 34, 42), 16) end\n"     \
    "  end\n"                                                                                      \
    "  if d > 0 then\n"                                                                            \
    "    local n = call('STRLEN', KEYS[1])\n"                                                      \
    "    if n > 0 and n <= tonumber(" LIMIT ") then return {r, call('GET', KEYS[1])} end\n"        \
    "    if n == 0 and call('EXISTS', KEYS[1]) == 1 then return {r, ''} end\n"                     \
    "    return {r}\n"                                                                             \
    "  end\n"

static const char push[] =
    "local call, head = redis.call, ARGV[1]\n" NOT_AHEAD("ARGV[13]") "if r then\n" COMPARE(
        "ARGV[11]") "  if d == 0 and ARGV[10] == 'q' then return 2 end\n"
                    "end\n"
                    "local id = redis.pcall('XADD', KEYS[3], 'NOMKSTREAM', 'MAXLEN', '~', ARGV[8], ARGV[7],"
                    " 'e', ARGV[2])\n"
                    "if not id then return 4 end\n"
                    "if type(id) == 'table' then\n"
                    "  if id.err and string.find(id.err, 'equal or smaller', 1, true) then return 4 end\n"
                    "  return id\n"
                    "end\n"
                    "if string.sub(id, -2) == '-0' then call('UNLINK', KEYS[3]) return 4 end\n"
                    "if ARGV[4] == 's' then\n"
                    "  local v = ARGV[12]\n"
                    "  if ARGV[3] ~= '0' then v = string.sub(ARGV[2], ARGV[3]) end\n"
                    "  if ARGV[5] == '' then call('SET', KEYS[1], v)\n"
                    "  else call('SET', KEYS[1], v, 'PXAT', ARGV[5]) end\n"
                    "else call('UNLINK', KEYS[1]) end\n"
                    "if ARGV[6] == '' then call('SET', KEYS[2], head)\n"
                    "else call('SET', KEYS[2], head, 'PXAT', ARGV[6]) end\n"
                    "call('PUBLISH', ARGV[9], id .. ' ' .. ARGV[2])\n"
                    "return 1\n";

static const char store[] =
    "local call, head = redis.call, ARGV[1]\n" NOT_AHEAD("ARGV[8]") "if r then\n" COMPARE(
        "ARGV[6]") "  if d == 0 and ARGV[5] == 'q' then return 2 end\n"
                   "end\n"
                   "if ARGV[5] == 'q' then return 5 end\n"
                   "if ARGV[2] == 's' then\n"
                   "  if ARGV[3] == '' then call('SET', KEYS[1], ARGV[7])\n"
                   "  else call('SET', KEYS[1], ARGV[7], 'PXAT', ARGV[3]) end\n"
                   "else call('UNLINK', KEYS[1]) end\n"
                   "if ARGV[4] == '' then call('SET', KEYS[2], head)\n"
                   "else call('SET', KEYS[2], head, 'PXAT', ARGV[4]) end\n"
                   "return 1\n";

static const char emit[] =
    "local call, pcall = redis.call, redis.pcall\n"
    "for i = 4, #ARGV do\n"
    "  local id = pcall('XADD', KEYS[1], 'NOMKSTREAM', 'MAXLEN', '~', ARGV[2], ARGV[1],"
    " 'e', ARGV[i])\n"
    "  if not id then return 4 end\n"
    "  if type(id) == 'table' then\n"
    "    if id.err and string.find(id.err, 'equal or smaller', 1, true) then return 4 end\n"
    "    return id\n"
    "  end\n"
    "  if string.sub(id, -2) == '-0' then call('UNLINK', KEYS[1]) return 4 end\n"
    "  call('PUBLISH', ARGV[3], id .. ' ' .. ARGV[i])\n"
    "end\n"
    "return 1\n";

static const char remove_[] =
    "#!lua flags=allow-oom\n"
    "local call, head = redis.call, ARGV[1]\n" NOT_AHEAD("ARGV[5]") "if r then\n" COMPARE(
        "ARGV[4]") "end\n"
                   "call('UNLINK', KEYS[1])\n"
                   "call('PUBLISH', ARGV[3], '- ' .. ARGV[2])\n"
                   "return 3\n";

/* Of an entry it answers the 36 bytes that end with its nonce: two whole ones, of a megabyte each
 * perhaps, would be more than redis.max_reply. */
static const char join[] =
    "#!lua flags=allow-oom\n"
    "local call = redis.call\n"
    "local function begin(entry) return string.sub(entry[2][2], 1, 36) end\n"
    "local t = call('TIME')\n"
    "local now = t[1] * 1000 + math.floor(t[2] / 1000)\n"
    "local owner = redis.pcall('GET', KEYS[2])\n"
    "if not owner or owner == ARGV[4] then\n"
    "  owner = ARGV[4]\n"
    "  redis.pcall('SET', KEYS[2], owner, 'PX', ARGV[5])\n"
    "end\n"
    "if type(owner) ~= 'string' then owner = ARGV[4] end\n"
    "local last = call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)\n"
    "if #last == 0 then\n"
    "  local epoch = t[1] * 1000000 + t[2]\n"
    "  local function behind(id)\n"
    "    local e = tonumber(string.match(id, '^%d+')) or 0\n"
    "    if e >= epoch and e < 9007199254730000 then epoch = e + 1 + t[2] % 1000 end\n"
    "  end\n"
    "  behind(ARGV[1])\n"
    "  if call('EXISTS', KEYS[1]) == 1 then\n"
    "    local info = redis.pcall('XINFO', 'STREAM', KEYS[1])\n"
    "    for i = 1, #info, 2 do if info[i] == 'last-generated-id' then behind(info[i + 1]) end end\n"
    "  end\n"
    "  local id = string.format('%.0f-0', epoch)\n"
    "  local added = redis.pcall('XADD', KEYS[1], id, 'e', ARGV[2])\n"
    "  if type(added) == 'table' then return added end\n"
    "  call('PUBLISH', ARGV[3], id .. ' ' .. ARGV[2])\n"
    "  return {id, ARGV[2], '', string.format('%.0f', now), owner}\n"
    "end\n"
    "local at = ''\n"
    "if ARGV[1] ~= '' then\n"
    "  local e = call('XRANGE', KEYS[1], ARGV[1], ARGV[1])\n"
    "  if #e == 1 then at = begin(e[1]) end\n"
    "end\n"
    "return {last[1][1], begin(last[1]), at, string.format('%.0f', now), owner}\n";

/* Newest wins; the event first, as above. The set is bounded, so it may grow even where Redis has
 * no memory: an invalidation is never refused. When it is full, the newest stay, and for the others
 * floors: F for groups and tags, A for prefixes and patterns. These are for hosts that come later:
 * others find what they stand for in the stream. Where the set was lost, or may have been, the
 * floors of the maps are told (not quiet), also when they are no news to this set, which may have
 * cut something newer meanwhile. What such a floor stands for does not come in again from those who
 * tell all that they know (quiet), but is told to the others where it is news.
 */
static const char mark[] =
    "#!lua flags=allow-oom\n"
    "local call, sub = redis.call, string.sub\n"
    "local t = call('TIME')\n"
    "local most = t[1] * 1000 + math.floor(t[2] / 1000) + tonumber(ARGV[8])\n"
    "local function newer(a, b)\n"
    "  local x, y = tonumber(sub(a, 1, 8), 16), tonumber(sub(b, 1, 8), 16) or 0\n"
    "  if x ~= y then return x > y end\n"
    "  return tonumber(sub(a, 9, 16), 16) > (tonumber(sub(b, 9, 16), 16) or 0)\n"
    "end\n"
    "local function raise(name, clock)\n"
    "  local there = call('HGET', KEYS[1], name)\n"
    "  if not there or newer(clock, there) then call('HSET', KEYS[1], name, clock) end\n"
    "end\n"
    "local floors = {m = 'F', p = 'A', g = 'A'}\n"
    "for i = 9, #ARGV, 3 do\n"
    "  local name, clock = ARGV[i], ARGV[i + 1]\n"
    "  if tonumber(sub(clock, 1, 12), 16) > most then clock = string.format('%012xffff', most) end\n"
    "  local there = call('HGET', KEYS[1], name)\n"
    "  local floor = floors[sub(name, 1, 1)]\n"
    "  floor = floor and not there and call('HGET', KEYS[1], floor)\n"
    "  local covered = floor and not newer(clock, floor)\n"
    "  local news = not there or newer(clock, there)\n"
    "  local lost = (name == 'F' or name == 'A') and ARGV[7] ~= 'q'\n"
    "  if (news or lost) and not (covered and ARGV[7] == 'q') then\n"
    "    local id = redis.pcall('XADD', KEYS[2], 'NOMKSTREAM', 'MAXLEN', '~', ARGV[2], ARGV[1],"
    " 'e', ARGV[i + 2])\n"
    "    if not id then return 4 end\n"
    "    if type(id) == 'table' then\n"
    "      if id.err and string.find(id.err, 'equal or smaller', 1, true) then return 4 end\n"
    "      return id\n"
    "    end\n"
    "    if sub(id, -2) == '-0' then call('UNLINK', KEYS[2]) return 4 end\n"
    "    if news and not covered then call('HSET', KEYS[1], name, clock) end\n"
    "    call('PUBLISH', ARGV[3], id .. ' ' .. ARGV[i + 2])\n"
    "  end\n"
    "end\n"
    "call('HSETNX', KEYS[1], 'i', ARGV[4])\n"
    "if call('HLEN', KEYS[1]) > tonumber(ARGV[5]) then\n"
    "  local all, clocks = call('HGETALL', KEYS[1]), {}\n"
    "  for i = 1, #all, 2 do\n"
    "    if floors[sub(all[i], 1, 1)] then clocks[#clocks + 1] = tonumber(sub(all[i + 1], 1, 13), 16) end\n"
    "  end\n"
    "  table.sort(clocks)\n"
    "  local last = clocks[#clocks - tonumber(ARGV[6])] or -1\n"
    "  for i = 1, #all, 2 do\n"
    "    local floor = floors[sub(all[i], 1, 1)]\n"
    "    if floor and tonumber(sub(all[i + 1], 1, 13), 16) <= last then\n"
    "      raise(floor, all[i + 1])\n"
    "      call('HDEL', KEYS[1], all[i])\n"
    "    end\n"
    "  end\n"
    "end\n"
    "return call('HGET', KEYS[1], 'i')\n";

const char *script_text(enum script_id id)
{
    static const char *const texts[SCRIPT_COUNT] = {push, remove_, join, mark, store, emit};
    return texts[id];
}
