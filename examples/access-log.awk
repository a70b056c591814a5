# access-log.awk: makes examples/access.log, so that it can be made again:
#
#     awk -v requests=2000 -f access-log.awk > access.log
#
# A made-up site: 300 pages whose popularity follows Zipf's law (exponent 0.9), a few pages that are
# gone, moved or forbidden, some requests with conditions (304) or for ranges (206), HEAD and POST.
BEGIN {
    seed = 20240229
    split("bread soup salad roast cake jam pickle cheese fish tea", dish)
    split("plum rye leek oat quince beet apple trout mint nut", stuff)
    for (i = 1; i <= 300; i++) {
        a = dish[1 + (i * 7) % 10]; b = stuff[1 + int(i / 3) % 10]
        kind = i % 12
        if (i == 1) path[i] = "/"
        else if (i == 2) path[i] = "/style.css"
        else if (i == 3) path[i] = "/favicon.ico"
        else if (i == 4) path[i] = "/script/search.js"
        else if (kind == 5) path[i] = "/images/" b "-" a "-" i ".jpg"
        else if (kind == 6) path[i] = "/images/" a "/" i ".png"
        else if (kind == 7) path[i] = "/search?q=" b "+" a "&page=" (1 + i % 4)
        else if (kind == 8) path[i] = "/recipes/" a "?sort=new&from=" i
        else if (kind == 9) path[i] = "/books/larder-" i ".pdf"
        else if (kind == 10) path[i] = "/recipes/" b "/" a "-" i ".html?ref=%7Bhome%7D"
        else path[i] = "/recipes/" b "/" a "-" i ".html"
        bytes[i] = 800 + int(random() * random() * 60000)
        if (kind == 9) bytes[i] = bytes[i] * 20
        total += weight[i] = 1 / i ^ 0.9
    }
    for (n = 0; n < requests; n++) {
        at = random() * total
        for (i = 1; i < 300 && at > weight[i]; i++) at -= weight[i]
        dice = random()
        if (dice < 0.015) print "GET /old/" 1 + int(random() * 12) ".html 404 310"
        else if (dice < 0.025) print "GET /recipes" 1 + int(random() * 3) " 301 334"
        else if (dice < 0.028) print "GET /private/ 403 290"
        else if (dice < 0.033) print "POST /search 200 5210"
        else if (dice < 0.034) print "OPTIONS / 200 0"
        else if (dice < 0.040) print "HEAD " path[i] " 200 0"
        else if (dice < 0.085) print "GET " path[i] " 304 0"
        else if (dice < 0.089) print "GET " path[i] " 206 1024"
        else print "GET " path[i] " 200 " bytes[i]
    }
}
# Park and Miller's generator: the same numbers with every awk.
function random() {
    seed = (seed * 16807) % 2147483647
    return seed / 2147483647
}
