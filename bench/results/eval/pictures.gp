# Pictures of ref-llama-8k.csv, some of its rows; for another folder:
#   gnuplot -e "dir='FOLDER'" pictures.gp
if (!exists('dir')) dir = '.'
set lmargin at screen 0.1
set rmargin at screen 0.97
set bmargin at screen 0.12
set tmargin at screen 0.92
set grid linetype 1 linecolor rgb '#d8d8d8'
set border linecolor rgb '#404040'
set xlabel 'bits per element of the coded tokens'
set xtics 1
model = 'kvcl reference llama'
conditions = 'last 128 of 8192 tokens, 4 places'

set title 'ref-llama-29m: quality against size (last 128 of 8,192 tokens, 4 places)'
set ylabel 'next-token KL against the exact cache, mean, nats'
set logscale y 10
set format y '10^{%L}'
set xrange [0:9]
set yrange [1e-06:10]
unset label
unset arrow
set label 1 'holo4' at graph 0.4775, graph 0.8633 center noenhanced
set label 2 'holo4-mmse' at graph 0.5328, graph 0.6959 center noenhanced
set label 3 'factor-k16v32' at graph 0.3364, graph 0.6620 center noenhanced
set label 4 'holo4-chip' at graph 0.1873, graph 0.6479 center noenhanced
set label 5 'quant1' at graph 0.0909, graph 0.6187 center noenhanced
set label 6 'quant2' at graph 0.2020, graph 0.5295 center noenhanced
set label 7 'rest0.91' at graph 0.0741, graph 0.5233 center noenhanced
set label 8 'quant-k2v3' at graph 0.3537, graph 0.5141 center noenhanced
set label 9 'spectral2' at graph 0.2586, graph 0.5622 center noenhanced
set arrow 9 from graph 0.2586, graph 0.5465 to graph 0.2586, graph 0.5075 nohead linecolor rgb '#b0b0b0'
set label 10 'superpose8-1.75' at graph 0.1348, graph 0.4548 center noenhanced
set arrow 10 from graph 0.1348, graph 0.4704 to graph 0.2248, graph 0.4970 nohead linecolor rgb '#b0b0b0'
set label 11 'rest1.34' at graph 0.1243, graph 0.4903 center noenhanced
set label 12 'quant-k3v2' at graph 0.2956, graph 0.4064 center noenhanced
set arrow 12 from graph 0.2956, graph 0.4220 to graph 0.2956, graph 0.4845 nohead linecolor rgb '#b0b0b0'
set label 13 'superpose4-2' at graph 0.1689, graph 0.4021 center noenhanced
set arrow 13 from graph 0.1689, graph 0.4177 to graph 0.2508, graph 0.4677 nohead linecolor rgb '#b0b0b0'
set label 14 'quant3' at graph 0.3892, graph 0.4390 center noenhanced
set label 15 'superpose8-2.25' at graph 0.1835, graph 0.3706 center noenhanced
set arrow 15 from graph 0.1835, graph 0.3862 to graph 0.2803, graph 0.4362 nohead linecolor rgb '#b0b0b0'
set label 16 'q4_0' at graph 0.5280, graph 0.3965 center noenhanced
set label 17 'quant4/post' at graph 0.5322, graph 0.4333 center noenhanced
set arrow 17 from graph 0.5322, graph 0.4176 to graph 0.4623, graph 0.3911 nohead linecolor rgb '#b0b0b0'
set label 18 'superpose4-3' at graph 0.3619, graph 0.3516 center noenhanced
set label 19 'quant4' at graph 0.4623, graph 0.3190 center noenhanced
set label 20 'quant4/channel' at graph 0.5681, graph 0.3503 center noenhanced
set arrow 20 from graph 0.5681, graph 0.3659 to graph 0.4831, graph 0.3503 nohead linecolor rgb '#b0b0b0'
set label 21 'q8_0' at graph 0.9725, graph 0.0454 center noenhanced
set label 22 'quant8' at graph 0.8687, graph 0.0224 center noenhanced
$quality << END
8.16047 1.43399e-06
4.16047 0.000283129
3.16047 0.00118313
2.66047 0.00246504
2.66047 0.00396797
2.16047 0.0050873
1.16047 0.0214237
4.16047 0.000546492
4.34797 0.000283041
8.5 2.07717e-06
4.5 0.000596463
3.25687 0.000478728
2.25687 0.00187937
2.52277 0.0011315
2.02277 0.003013
2.32697 0.00356717
1.55068 0.00270477
1.0997 0.00460639
2.3706 0.0430519
4 1.10515
4.27241 0.0742987
2.20825 0.0342958
END
set terminal pngcairo size 1000,640
set output dir.'/quality.png'
plot $quality using 1:2 with points pointtype 7 linecolor rgb '#0060a8' notitle
set terminal svg size 1000,640
set output dir.'/quality.svg'
plot $quality using 1:2 with points pointtype 7 linecolor rgb '#0060a8' notitle

set title 'ref-llama-29m on an H200: speed against size (last 128 of 8,192 tokens, 4 places)'
set ylabel 'tokens per second, decoding'
unset logscale y
set format y '%g'
set xrange [0:17]
set yrange [0:3900]
unset label
unset arrow
set label 1 'exact' at graph 0.9742, graph 0.8618 center noenhanced
set label 2 'f16' at graph 0.9642, graph 0.5058 center noenhanced
set label 3 'quant4/channel' at graph 0.3338, graph 0.4849 center noenhanced
set label 4 'quant4/post' at graph 0.1817, graph 0.4832 center noenhanced
set label 5 'quant2' at graph 0.1271, graph 0.3815 center noenhanced
set label 6 'quant3' at graph 0.1859, graph 0.3147 center noenhanced
set label 7 'quant1' at graph 0.0302, graph 0.3439 center noenhanced
set label 8 'quant8' at graph 0.5181, graph 0.3337 center noenhanced
set label 9 'quant4' at graph 0.2828, graph 0.3318 center noenhanced
set label 10 'superpose4-2' at graph 0.0647, graph 0.1966 center noenhanced
set label 11 'superpose4-3' at graph 0.2596, graph 0.1927 center noenhanced
set label 12 'holo4' at graph 0.2683, graph 0.1441 center noenhanced
set label 13 'q4_0' at graph 0.2928, graph 0.1053 center noenhanced
set label 14 'q8_0' at graph 0.5280, graph 0.1047 center noenhanced
set label 15 'factor-k16v32' at graph 0.2125, graph 0.0372 center noenhanced
set label 16 'rest1.34' at graph 0.0912, graph 0.0359 center noenhanced
$speed << END
16 3361.21
16 1972.71
8.16047 1301.5
4.16047 1294.15
3.16047 1349.29
2.16047 1365.86
1.16047 1341.13
4.16047 1884.67
4.34797 1891.15
8.5 408.357
4.5 410.765
3.25687 751.509
2.25687 766.545
1.55068 18.1504
2.3706 145.15
4 635.161
END
set terminal pngcairo size 1000,640
set output dir.'/speed.png'
plot $speed using 1:2 with points pointtype 7 linecolor rgb '#0060a8' notitle
set terminal svg size 1000,640
set output dir.'/speed.svg'
plot $speed using 1:2 with points pointtype 7 linecolor rgb '#0060a8' notitle
