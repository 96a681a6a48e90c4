#!/usr/bin/env python3
"""Plain text of public-domain books for train.py.

Reads bare git repositories of Standard Ebooks books (their productions are dedicated to the public
domain, CC0) found as mirror/standardebooks+AUTHOR_TITLE/repo, and writes all.txt (training) and
heldout.txt (the four books of HELD), one book per NUL-terminated record.
"""
import subprocess,os,re,html,glob,sys
out=open('all.txt','w',encoding='utf8')
held=open('heldout.txt','w',encoding='utf8')
tot=0; n=0
HELD={'jane-austen_emma','h-g-wells_short-fiction','charles-darwin_the-voyage-of-the-beagle','wilkie-collins_the-moonstone'}
def git(repo,*a):
    return subprocess.run(['git','--git-dir='+repo,*a],capture_output=True).stdout
for d in sorted(glob.glob('mirror/standardebooks+*_*')):
    repo=d+'/repo'; name=d.split('standardebooks+')[1]
    spine=git(repo,'show','HEAD:src/epub/content.opf').decode('utf8','ignore')
    items=dict()
    for m in re.finditer(r'<item [^>]*>',spine):
        t=m.group(0); i=re.search(r'id="([^"]+)"',t); h=re.search(r'href="([^"]+)"',t)
        if i and h: items[i.group(1)]=h.group(1)
    order=[items[x] for x in re.findall(r'<itemref idref="([^"]+)"',spine) if x in items]
    book=[]
    for h in order:
        b=os.path.basename(h)
        if b.startswith(('titlepage','imprint','colophon','uncopyright','endnotes','halftitle','loi','dedication')): continue
        x=git(repo,'show','HEAD:src/epub/'+h).decode('utf8','ignore')
        m=re.search(r'<body[^>]*>(.*)</body>',x,re.S)
        if not m: continue
        t=m.group(1)
        t=re.sub(r'<a [^>]*epub:type="noteref"[^>]*>.*?</a>','',t)
        t=re.sub(r'\s*\n\s*',' ',t)
        t=re.sub(r'</(p|h[1-6]|li|blockquote|tr|header|section|div)>','\n',t)
        t=re.sub(r'<br\s*/?>','\n',t)
        t=re.sub(r'<[^>]+>','',t)
        t=html.unescape(t)
        t=t.replace('\u2060','').replace('\u200b','').replace('\u00a0',' ').replace('\u200a',' ').replace('\u2009',' ').replace('\u202f',' ')
        t=t.replace('\u2019',"'").replace('\u2018',"'").replace('\u201c','"').replace('\u201d','"').replace('\u2014','--').replace('\u2013','-').replace('\u2026','...').replace('\u2e3a','----').replace('\u2011','-')
        lines=[l.strip() for l in t.split('\n')]
        book.append('\n'.join(l for l in lines if l))
    txt='\n\n'.join(book)+'\n'
    txt=txt.replace('\x00','')
    f=held if name in HELD else out
    f.write(txt+'\x00')
    tot+=len(txt); n+=1
    print(name,len(txt))
print(n,tot)
